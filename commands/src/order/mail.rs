//! The letters that an order owes to its customer. An event with `mail: true` creates each one; it
//! is owed until it was sent or was refused permanently.
//!
//! An order that is cancelled before it was confirmed owes no letter, because the customer has not
//! received one that announced it.

use super::{Effect, Order, RecordMailRefused, RecordMailSent};
use events::{
    order::{Event, Mail, MailRefused, MailSent},
    planted::Bug,
};
use serde::{Deserialize, Serialize};

/// The letters that are owed, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OwedMails(u8);

impl OwedMails {
    fn bit(mail: Mail) -> u8 {
        1 << mail as u8
    }

    pub fn owe(&mut self, mail: Mail) {
        self.0 |= Self::bit(mail);
    }

    fn end(&mut self, mail: Mail) {
        self.0 &= !Self::bit(mail);
    }

    fn owes(self, mail: Mail) -> bool {
        self.0 & Self::bit(mail) != 0
    }

    /// The next letter to send, in the sequence in which the customer expects them.
    fn first(self) -> Option<Mail> {
        Mail::ALL.into_iter().find(|mail| self.owes(*mail))
    }
}

impl Order {
    pub(super) fn mail_owed(&self) -> Option<Effect> {
        let mail = self.mails.first()?;
        Some(Effect::Mail { mail, customer_id: self.customer_id })
    }

    pub(super) fn fold_sent(&mut self, sent: &MailSent) {
        if !Bug::MailSentTwice.is_planted() {
            self.mails.end(sent.mail);
        }
    }

    pub(super) fn fold_refused(&mut self, refused: &MailRefused) {
        self.mails.end(refused.mail);
    }

    /// A letter that is not owed, because its result is already recorded, changes nothing.
    pub(super) fn record_mail_sent(&self, sent: &RecordMailSent) -> Vec<Event> {
        let RecordMailSent { mail, message_id } = sent.clone();
        let owed = self.mails.owes(mail);
        owed.then(|| MailSent { mail, message_id }.into()).into_iter().collect()
    }

    pub(super) fn record_mail_refused(&self, refused: &RecordMailRefused) -> Vec<Event> {
        let RecordMailRefused { mail, code } = refused.clone();
        let owed = self.mails.owes(mail);
        owed.then(|| MailRefused { mail, code }.into()).into_iter().collect()
    }
}
