//! Sends the letters that orders owe. A letter is written when it is sent, from the customer's
//! profile at that moment.

use super::{EffectError, Executor, owed_request};
use crate::{
    customer::Customer,
    mail::{Letter, MailError},
    order::{self, CANCEL_REASON, Order, RecordMailRefused, RecordMailSent},
    request::State,
};
use events::{Sealed, StreamId, order::Mail, seal::Key};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use uuid::Uuid;

/// How long the dispatcher waits for a letter before it gives up and retries later. Longer than the
/// mailer's own time-outs.
const PATIENCE: Duration = Duration::from_mins(3);

/// The code of a letter to an erased customer.
const ERASED: &str = "erased";

/// The code of a letter to a customer whose data does not open with their key.
const UNREADABLE: &str = "unreadable";

/// Letters that were sent and are not recorded in the log yet. As long as the process lives, it
/// records them and does not send them again.
#[derive(Default)]
pub(super) struct Sent(Mutex<BTreeMap<(Uuid, Mail), Arc<str>>>);

impl Sent {
    fn find(&self, order: Uuid, mail: Mail) -> Option<Arc<str>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&(order, mail)).cloned()
    }

    fn note(&self, order: Uuid, mail: Mail, message_id: &Arc<str>) {
        let mut sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sent.insert((order, mail), Arc::clone(message_id));
    }

    fn forget(&self, order: Uuid, mail: Mail) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&(order, mail));
    }
}

/// The result of a letter. Both end the effect.
enum Delivery {
    /// The mail server took it. Contains its Message-ID.
    Sent(Arc<str>),
    /// It will never be sent. Contains the code of the reason.
    Refused(Arc<str>),
}

impl Executor {
    pub(super) async fn mail_effect(
        &self,
        order: StreamId,
        effect: &order::Effect,
        mail: Mail,
        customer_id: Uuid,
    ) -> Result<(), EffectError> {
        let delivery = match self.sent.find(order.id, mail) {
            Some(message_id) => Delivery::Sent(message_id),
            None => self.deliver(order, mail, customer_id).await?,
        };
        if let Delivery::Sent(message_id) = &delivery {
            self.sent.note(order.id, mail, message_id);
            // The customer was erased meanwhile. The erasure may have destroyed the customer's
            // letters before this one existed.
            if self.key(customer_id).await?.is_none() {
                self.mailer.forget(customer_id).await?;
            }
        }
        let command: order::Command = match delivery {
            Delivery::Sent(message_id) => RecordMailSent { mail, message_id }.into(),
            Delivery::Refused(code) => {
                tracing::info!(%order, ?mail, %code, "a letter was refused and will not be sent");
                RecordMailRefused { mail, code }.into()
            }
        };
        // This is never refused: a letter that is already recorded changes nothing.
        let _ = self
            .send_command(owed_request(order, order, &effect.id().to_string(), command))
            .await?;
        self.sent.forget(order.id, mail);
        Ok(())
    }

    /// Writes the letter and sends it. An error is temporary: the letter stays owed.
    async fn deliver(
        &self,
        order: StreamId,
        mail: Mail,
        customer_id: Uuid,
    ) -> Result<Delivery, EffectError> {
        // The breaker is asked before the key store and the shards: while the mail server is away,
        // every letter that is owed comes here again and again.
        self.mail_breaker.admit().map_err(MailError::unavailable)?;
        let Some(key) = self.key(customer_id).await? else {
            return self.no_recipient(customer_id).await;
        };
        let customer = self.router.state(StreamId::customer(customer_id)).await?;
        let order = self.router.state(order).await?;
        let (State::Customer(customer), State::Order(about)) = (&customer.state, &order.state)
        else {
            return Err(EffectError::Unanswered);
        };
        if customer.is_erased() {
            return self.no_recipient(customer_id).await;
        }
        let id = order.stream.id;
        let Some(letter) = self.letter(mail, id, about, customer_id, customer, &key) else {
            tracing::error!(order = %order.stream, "the customer's data does not open with their key");
            return Ok(Delivery::Refused(UNREADABLE.into()));
        };
        self.send_letter(&letter).await
    }

    /// The customer is erased. Destroys what an earlier attempt may have left behind.
    async fn no_recipient(&self, customer_id: Uuid) -> Result<Delivery, EffectError> {
        self.mailer.forget(customer_id).await?;
        Ok(Delivery::Refused(ERASED.into()))
    }

    async fn key(&self, customer_id: Uuid) -> Result<Option<Key>, EffectError> {
        Ok(self.keys.get(&[customer_id]).await?.pop().flatten())
    }

    /// The letter; `None` if the customer's data does not open with the key.
    fn letter(
        &self,
        mail: Mail,
        order_id: Uuid,
        order: &Order,
        customer_id: Uuid,
        customer: &Customer,
        key: &Key,
    ) -> Option<Letter> {
        let profile = customer.profile()?;
        let open = |sealed: &Sealed, field| sealed.open(key, customer_id, field).ok();
        Some(Letter {
            mail,
            order_id,
            customer_id,
            email: open(&profile.email, "email")?,
            first_name: open(&profile.first_name, "first_name")?,
            last_name: open(&profile.last_name, "last_name")?,
            priced: order.detail().and_then(|detail| detail.priced.clone()),
            reason: match order.sealed_reason() {
                Some(sealed) => Some(open(sealed, CANCEL_REASON)?.into()),
                None => order.reason().map(Arc::from),
            },
            refund: order.refund_state(),
            date: self.environment.now(),
            owed_since: order.shown().updated_at,
        })
    }

    /// Sends the letter, with a time limit, and tells the breaker whether the server works.
    async fn send_letter(&self, letter: &Letter) -> Result<Delivery, EffectError> {
        let answer = tokio::select! {
            biased;
            answer = self.mailer.send(letter) => answer,
            () = self.environment.sleep(PATIENCE) => Err(MailError::unavailable("no answer in time")),
        };
        self.mail_breaker.note(!matches!(answer, Err(MailError::Unavailable(_))));
        match answer {
            Ok(message_id) => Ok(Delivery::Sent(message_id)),
            Err(MailError::Refused(code)) => Ok(Delivery::Refused(code)),
            Err(error) => Err(error.into()),
        }
    }
}
