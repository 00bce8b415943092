//! What an order is.

use super::mail::OwedMails;
use crate::aggregate::At;
use chrono::serde::ts_microseconds;
use events::{
    Money, Sealed, Timestamp,
    order::{Event, Line, Mail, Placed, Priced, Rejected, RejectionReason},
};
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};
use uuid::Uuid;

/// Where an order is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Status {
    /// Placed; not paid yet.
    Pending,
    /// The shop will deliver it.
    Confirmed,
    /// It is being packed.
    Processing,
    /// It left the house.
    Shipped,
    /// It arrived.
    Delivered,
    /// Somebody changed their mind.
    Cancelled,
    /// The shop could not take it.
    Rejected,
}

impl Status {
    /// The name as clients see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Confirmed => "confirmed",
            Self::Processing => "processing",
            Self::Shipped => "shipped",
            Self::Delivered => "delivered",
            Self::Cancelled => "cancelled",
            Self::Rejected => "rejected",
        }
    }

    /// Whether nothing can follow.
    pub fn is_final(self) -> bool {
        self == Self::Delivered || self.is_dead()
    }

    /// Whether it will never be delivered, so that its stock and money go back.
    pub fn is_dead(self) -> bool {
        matches!(self, Self::Cancelled | Self::Rejected)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether money goes back to the customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefundState {
    /// Nothing is to go back.
    None,
    /// Money is to go back, or it is not known yet whether any was taken.
    Pending,
    /// It went back.
    Done,
}

/// What is known of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PaymentState {
    /// The gateway has it: money may move.
    Started,
    /// The money was taken.
    Captured,
    /// The gateway declined.
    Declined,
    /// It was given up before money moved.
    Voided,
    /// The money was taken and went back.
    Refunded,
}

/// A payment at the gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Payment {
    /// Which attempt, from 1.
    pub ordinal: u32,
    /// The gateway's id of it.
    pub payment_id: Arc<str>,
    /// What is to be taken; once captured, what was.
    pub amount: Money,
    /// What is known of it.
    pub state: PaymentState,
}

/// What an order holds until it is finished and owes nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Detail {
    /// What was asked for, one line a product.
    pub lines: Arc<[Line]>,
    /// The gateway's token for the means of payment.
    pub payment_method: Arc<str>,
    /// Where to, sealed with the customer's key.
    pub shipping_address: Option<Sealed>,
    /// When it expires if it is still pending.
    pub deadline: Timestamp,
    /// Lines with prices, subtotal, discounts and total; `None` until they are fixed.
    pub priced: Option<Priced>,
    /// The whole problem of a rejected order.
    pub rejected: Option<Rejected>,
}

/// Which streams know how the order ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Settled {
    pub customer: bool,
    pub stock: bool,
}

/// An order. Once finished and compacted it is this struct alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Order {
    pub(super) status: Option<Status>,
    pub(super) customer_id: Uuid,
    pub(super) detail: Option<Arc<Detail>>,
    pub(super) payment: Option<Arc<Payment>>,
    pub(super) was_confirmed: bool,
    pub(super) settled: Settled,
    pub(super) mails: OwedMails,
    refunded: bool,
    rejection: Option<RejectionReason>,
    cancel_reason: Option<Arc<str>>,
    shown_version: u64,
    #[serde(with = "ts_microseconds")]
    placed_at: Timestamp,
    #[serde(with = "ts_microseconds")]
    updated_at: Timestamp,
}

impl Order {
    /// Whether it was placed.
    pub fn exists(&self) -> bool {
        self.status.is_some()
    }

    /// Where it is; `None` when it was never placed.
    pub fn status(&self) -> Option<Status> {
        self.status
    }

    /// Whether it is not decided yet.
    pub fn is_pending(&self) -> bool {
        self.status == Some(Status::Pending)
    }

    /// Whose it is; nil when it was never placed.
    pub fn customer_id(&self) -> Uuid {
        self.customer_id
    }

    /// What it holds; `None` once it is finished, owes nothing and is compacted. The read model has it then.
    pub fn detail(&self) -> Option<&Detail> {
        self.detail.as_deref()
    }

    /// Its payment, as long as more can become of it.
    pub fn payment(&self) -> Option<&Payment> {
        self.payment.as_deref()
    }

    /// Why it ended: the problem's name of a rejected order, the caller's words for a cancelled one.
    pub fn reason(&self) -> Option<&str> {
        self.rejection.map(RejectionReason::as_str).or(self.cancel_reason.as_deref())
    }

    /// Whether money goes back.
    pub fn refund_state(&self) -> RefundState {
        let dead = self.status.is_some_and(Status::is_dead);
        match self.payment().map(|payment| payment.state) {
            Some(PaymentState::Started | PaymentState::Captured) if dead => RefundState::Pending,
            _ if self.refunded => RefundState::Done,
            _ => RefundState::None,
        }
    }

    /// When it expires; `None` unless it is pending.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.detail().filter(|_| self.is_pending()).map(|detail| detail.deadline)
    }

    /// The stream version of the last event that changed the order as shown.
    pub fn shown_version(&self) -> u64 {
        self.shown_version
    }

    /// When it was placed.
    pub fn placed_at(&self) -> Timestamp {
        self.placed_at
    }

    /// When it last changed as shown.
    pub fn updated_at(&self) -> Timestamp {
        self.updated_at
    }

    pub(super) fn fold(&mut self, event: &Event, at: At) {
        match event {
            Event::Placed(placed) => self.place(placed, at.time),
            Event::Priced(priced) => self.amend(|detail| detail.priced = Some(priced.clone())),
            Event::Rejected(rejected) => {
                self.status = Some(Status::Rejected);
                self.rejection = Some(rejected.reason);
                self.amend(|detail| detail.rejected = Some(rejected.clone()));
            }
            Event::PaymentStarted(started) => {
                self.payment = Some(Arc::new(Payment {
                    ordinal: started.ordinal,
                    payment_id: Arc::clone(&started.payment_id),
                    amount: started.amount,
                    state: PaymentState::Started,
                }));
            }
            Event::PaymentCaptured(captured) => {
                self.pay(PaymentState::Captured, Some(captured.amount));
            }
            Event::PaymentDeclined(_) => self.pay(PaymentState::Declined, None),
            Event::PaymentVoided(_) => self.pay(PaymentState::Voided, None),
            Event::RefundIssued(_) => {
                self.refunded = true;
                self.pay(PaymentState::Refunded, None);
            }
            Event::Confirmed(confirmed) => {
                self.was_confirmed = true;
                self.moves(Status::Confirmed, confirmed.mail.then_some(Mail::Confirmed));
            }
            Event::ProcessingStarted(_) => self.status = Some(Status::Processing),
            Event::Shipped(shipped) => {
                self.moves(Status::Shipped, shipped.mail.then_some(Mail::Shipped));
            }
            Event::Delivered(_) => self.status = Some(Status::Delivered),
            Event::Cancelled(cancelled) => {
                self.moves(Status::Cancelled, cancelled.mail.then_some(Mail::Cancelled));
                self.cancel_reason.clone_from(&cancelled.reason);
            }
            Event::CustomerSettled(_) => self.settled.customer = true,
            Event::StockSettled(_) => self.settled.stock = true,
            Event::MailSent(sent) => self.fold_sent(sent),
            Event::MailRefused(refused) => self.fold_refused(refused),
        }
        if !event.is_bookkeeping() {
            self.shown_version = at.version;
            self.updated_at = at.time;
        }
    }

    /// To a status that the customer may be owed a letter about.
    fn moves(&mut self, to: Status, mail: Option<Mail>) {
        self.status = Some(to);
        if let Some(mail) = mail {
            self.mails.owe(mail);
        }
    }

    fn place(&mut self, placed: &Placed, time: Timestamp) {
        self.status = Some(Status::Pending);
        self.customer_id = placed.customer_id;
        self.placed_at = time;
        self.detail = Some(Arc::new(Detail {
            lines: Arc::clone(&placed.lines),
            payment_method: Arc::clone(&placed.payment_method),
            shipping_address: placed.shipping_address.clone(),
            deadline: placed.deadline,
            priced: None,
            rejected: None,
        }));
    }

    fn amend(&mut self, change: impl FnOnce(&mut Detail)) {
        if let Some(detail) = &mut self.detail {
            change(Arc::make_mut(detail));
        }
    }

    fn pay(&mut self, state: PaymentState, amount: Option<Money>) {
        if let Some(payment) = &mut self.payment {
            let payment = Arc::make_mut(payment);
            payment.state = state;
            payment.amount = amount.unwrap_or(payment.amount);
        }
    }

    /// Drops what a finished order needs no more. A payment that was declined or voided stays: should the gateway break its
    /// word and take the money after all, it can be named when it goes back.
    pub(super) fn forget(&mut self) {
        if !self.status.is_some_and(Status::is_final) || !self.owed().is_empty() {
            return;
        }
        self.detail = None;
        self.payment.take_if(|payment| {
            matches!(payment.state, PaymentState::Captured | PaymentState::Refunded)
        });
    }
}
