//! The state of an order.

use super::mail::OwedMails;
use crate::aggregate::{At, Shown};
use events::{
    Money, Private, Sealed, Timestamp,
    order::{Event, Line, Mail, Placed, Priced, Rejected, RejectionReason},
};
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};
use uuid::Uuid;

/// The field under which the reason of a cancelled order is sealed.
pub const CANCEL_REASON: &str = "cancel_reason";

/// The status of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Status {
    /// Placed, and not paid yet.
    Pending,
    /// Paid, or free of charge.
    Confirmed,
    /// Being packed.
    Processing,
    /// On its way.
    Shipped,
    /// Arrived.
    Delivered,
    /// Cancelled by the customer or the staff.
    Cancelled,
    /// Refused by the shop, for example because stock or payment was missing.
    Rejected,
}

impl Status {
    /// The status's name in the API.
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

    /// Whether the shop has no more to do than what the order still owes: it was sent, or never will
    /// be.
    pub fn is_done(self) -> bool {
        matches!(self, Self::Shipped | Self::Delivered) || self.is_dead()
    }

    /// Whether the order will never be delivered, so that its stock is released and its money
    /// refunded.
    pub fn is_dead(self) -> bool {
        matches!(self, Self::Cancelled | Self::Rejected)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether the customer gets money back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefundState {
    /// There is nothing to refund.
    None,
    /// A refund is owed, or it is not known yet whether the payment was captured.
    Pending,
    /// The refund was made.
    Done,
    /// A refund failed. The shop tries again, or a person must return the money.
    Failed,
}

/// The state of a payment, as far as the log knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PaymentState {
    /// The gateway has created it; money may move.
    Started,
    /// The money was taken.
    Captured,
    /// The gateway declined it.
    Declined,
    /// It was cancelled at the gateway before money moved.
    Voided,
    /// The money was taken and refunded.
    Refunded,
    /// The money was taken and is due, but the gateway refuses to refund it.
    RefundRefused,
}

/// A payment at the gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Payment {
    /// The attempt, from 1.
    pub ordinal: u32,
    /// The gateway's id of the payment.
    pub payment_id: Arc<str>,
    /// The amount to capture; once captured, the amount that was.
    pub amount: Money,
    /// Its state.
    pub state: PaymentState,
    /// Which refund of it is owed or was made, from 1.
    pub refund: u32,
}

/// The part of an order that is dropped once the order is finished and owes nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Detail {
    /// The lines as ordered, each product once.
    pub lines: Arc<[Line]>,
    /// The gateway's token for the payment method.
    pub payment_method: Private,
    /// The address, sealed with the customer's key.
    pub shipping_address: Option<Sealed>,
    /// The order expires at this moment of the wall clock if it is still pending.
    pub deadline: Timestamp,
    /// The last moment of log time at which it may be opened at its customer and products.
    pub not_after: Timestamp,
    /// The lines with prices, the subtotal, discounts and total; `None` until the price is set.
    pub priced: Option<Priced>,
    /// Why the order was rejected, with everything the API tells about it.
    pub rejected: Option<Rejected>,
}

/// Which other streams have closed the order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Closes {
    pub customer: bool,
    pub stock: bool,
}

/// An order. Once finished and compacted, only this struct remains.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Order {
    pub(super) status: Option<Status>,
    pub(super) customer_id: Uuid,
    pub(super) detail: Option<Arc<Detail>>,
    pub(super) payment: Option<Arc<Payment>>,
    pub(super) was_confirmed: bool,
    pub(super) closes: Closes,
    pub(super) mails: OwedMails,
    pub(super) rejection: Option<RejectionReason>,
    /// Why it was cancelled, sealed with the customer's key.
    cancel_reason: Option<Sealed>,
    /// The same of an order that was cancelled before reasons were sealed.
    plain_cancel_reason: Option<Arc<str>>,
    shown: Shown,
}

impl Order {
    /// Whether the order was placed.
    pub fn exists(&self) -> bool {
        self.status.is_some()
    }

    /// Its status; `None` if it was never placed.
    pub fn status(&self) -> Option<Status> {
        self.status
    }

    /// Whether it is neither confirmed nor rejected nor cancelled yet.
    pub fn is_pending(&self) -> bool {
        self.status == Some(Status::Pending)
    }

    /// The customer it belongs to; nil if it was never placed.
    pub fn customer_id(&self) -> Uuid {
        self.customer_id
    }

    /// Its details; `None` once it is finished, owes nothing and has been compacted. Then only the
    /// read model has them.
    pub fn detail(&self) -> Option<&Detail> {
        self.detail.as_deref()
    }

    /// Its payment, as long as the payment's state may still change.
    pub fn payment(&self) -> Option<&Payment> {
        self.payment.as_deref()
    }

    /// Why it ended, as far as that is not sealed: the reason code of a rejected order, or the
    /// caller's words for one that was cancelled before reasons were sealed.
    pub fn reason(&self) -> Option<&str> {
        self.rejection.map(RejectionReason::as_str).or(self.plain_cancel_reason.as_deref())
    }

    /// The caller's words for a cancelled order, sealed with the customer's key (field
    /// [`CANCEL_REASON`]).
    pub fn sealed_reason(&self) -> Option<&Sealed> {
        self.cancel_reason.as_ref()
    }

    /// Whether the customer gets money back.
    pub fn refund_state(&self) -> RefundState {
        let is_dead = self.status.is_some_and(Status::is_dead);
        let Some(payment) = self.payment().filter(|_| is_dead) else { return RefundState::None };
        match payment.state {
            PaymentState::Captured if payment.refund > 1 => RefundState::Failed,
            PaymentState::Started | PaymentState::Captured => RefundState::Pending,
            PaymentState::Refunded => RefundState::Done,
            PaymentState::RefundRefused => RefundState::Failed,
            PaymentState::Declined | PaymentState::Voided => RefundState::None,
        }
    }

    /// When it expires; `None` unless it is pending.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.detail().filter(|_| self.is_pending()).map(|detail| detail.deadline)
    }

    /// The version and times that clients see; created when it was placed.
    pub fn shown(&self) -> Shown {
        self.shown
    }

    pub(super) fn fold(&mut self, event: &Event, at: At) {
        match event {
            Event::Placed(placed) => self.place(placed),
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
                    refund: 1,
                }));
            }
            Event::PaymentCaptured(captured) => {
                self.pay(PaymentState::Captured, Some(captured.amount));
            }
            Event::PaymentDeclined(_) => self.pay(PaymentState::Declined, None),
            Event::PaymentVoided(_) => self.pay(PaymentState::Voided, None),
            Event::RefundIssued(_) => self.pay(PaymentState::Refunded, None),
            Event::RefundFailed(failed) => {
                let owes =
                    if failed.again { PaymentState::Captured } else { PaymentState::RefundRefused };
                self.pay(owes, None);
                if let Some(payment) = &mut self.payment {
                    Arc::make_mut(payment).refund = failed.refund + 1;
                }
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
                self.plain_cancel_reason.clone_from(&cancelled.plain_reason);
            }
            Event::CustomerSettled(_) => self.closes.customer = true,
            Event::StockSettled(_) => self.closes.stock = true,
            Event::MailSent(sent) => self.fold_sent(sent),
            Event::MailRefused(refused) => self.fold_refused(refused),
        }
        if !event.is_bookkeeping() {
            self.shown.note(at);
        }
    }

    /// Changes the status, and owes the letter that announces it.
    fn moves(&mut self, to: Status, mail: Option<Mail>) {
        self.status = Some(to);
        if let Some(mail) = mail {
            self.mails.owe(mail);
        }
    }

    fn place(&mut self, placed: &Placed) {
        self.status = Some(Status::Pending);
        self.customer_id = placed.customer_id;
        self.detail = Some(Arc::new(Detail {
            lines: Arc::clone(&placed.lines),
            payment_method: placed.payment_method.clone(),
            shipping_address: placed.shipping_address.clone(),
            deadline: placed.deadline,
            not_after: placed.not_after,
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

    /// Drops what a shipped or finished order that owes nothing no longer needs. Not every shop says
    /// of its orders that they are delivered. A declined or voided payment stays: if the gateway
    /// takes the money after all, the order still knows which payment to refund. A refunded one
    /// stays as well: the bank may send the money back days later.
    pub(super) fn forget(&mut self) {
        if !self.status.is_some_and(Status::is_done) || !self.owed().is_empty() {
            return;
        }
        self.detail = None;
        self.payment.take_if(|payment| payment.state == PaymentState::Captured);
    }
}
