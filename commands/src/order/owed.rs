//! The effects that an order still owes: a pure function of its state.
//!
//! Every effect was created by an event and ends in an event. So a new kind of effect needs a new
//! event, or a new field in one, to create it: new code must never owe something new because of old
//! history. `golden.json` holds old histories and the effects that they owe.

use super::{Detail, Order, Payment, PaymentState, Status};
use crate::aggregate::EffectId;
use events::{
    Money, Private, Timestamp,
    order::{Line, Mail, RejectionReason},
    planted::Bug,
};
use std::sync::Arc;
use uuid::Uuid;

/// An effect that an order owes.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Open the order at the customer and reserve stock for every line, in the global order of
    /// products. Then price the order, or reject it.
    Open {
        /// The customer of the order.
        customer_id: Uuid,
        /// The lines to reserve.
        lines: Arc<[Line]>,
        /// The last moment of log time to open and reserve.
        not_after: Timestamp,
    },
    /// Create the payment at the gateway, without moving money.
    StartPayment {
        /// The attempt, from 1.
        ordinal: u32,
        /// The amount to capture.
        amount: Money,
        /// The gateway's token for the payment method.
        method: Private,
    },
    /// Capture the payment.
    Capture {
        /// The attempt.
        ordinal: u32,
        /// The gateway's id of the payment.
        payment_id: Arc<str>,
        /// The amount to capture.
        amount: Money,
    },
    /// Bring the payment of a cancelled or rejected order to its final state: void it, or find out
    /// that it was captured. Stays owed until one of the two is certain.
    Settle {
        /// The attempt.
        ordinal: u32,
        /// The gateway's id of the payment.
        payment_id: Arc<str>,
        /// The amount that would have been captured.
        amount: Money,
    },
    /// Refund the payment.
    Refund {
        /// The attempt whose payment was captured.
        ordinal: u32,
        /// Which refund of it, from 1.
        refund: u32,
        /// The gateway's id of the payment.
        payment_id: Arc<str>,
        /// The amount that was captured.
        amount: Money,
    },
    /// Close the order at the customer's stream, with its result.
    CloseCustomer {
        /// The customer of the order.
        customer_id: Uuid,
        /// Whether it was confirmed.
        confirmed: bool,
        /// Whether the gateway declined its payment.
        declined: bool,
        /// The `not_after` of the open.
        not_after: Timestamp,
    },
    /// Close the order at every product and release its reservation, if there is one.
    ReleaseStock {
        /// The products, with the quantities ordered.
        lines: Arc<[Line]>,
        /// The `not_after` of the reservations.
        not_after: Timestamp,
    },
    /// Close the order at every product and ship what is reserved.
    ShipStock {
        /// The products, with the quantities ordered.
        lines: Arc<[Line]>,
        /// The `not_after` of the reservations.
        not_after: Timestamp,
    },
    /// Send a letter to the customer.
    Mail {
        /// The letter.
        mail: Mail,
        /// The customer of the order.
        customer_id: Uuid,
    },
}

impl Effect {
    /// Identifies the effect among those of its order.
    pub fn id(&self) -> EffectId {
        let (name, ordinal) = match self {
            Self::Open { .. } => ("open", 0),
            Self::StartPayment { ordinal, .. } => ("start-payment", *ordinal),
            Self::Capture { ordinal, .. } => ("capture", *ordinal),
            Self::Settle { ordinal, .. } => ("settle", *ordinal),
            Self::Refund { refund, .. } => ("refund", *refund),
            Self::CloseCustomer { .. } => ("close-customer", 0),
            Self::ReleaseStock { .. } => ("release-stock", 0),
            Self::ShipStock { .. } => ("ship-stock", 0),
            Self::Mail { mail: Mail::Confirmed, .. } => ("mail-confirmed", 0),
            Self::Mail { mail: Mail::Shipped, .. } => ("mail-shipped", 0),
            Self::Mail { mail: Mail::Cancelled, .. } => ("mail-cancelled", 0),
        };
        EffectId { name, ordinal }
    }
}

impl Order {
    /// The effects that the order owes now. The stream id is the order's id.
    pub fn owed(&self) -> Vec<Effect> {
        let Some(status) = self.status else { return vec![] };
        let effects = [
            self.money_owed(status),
            self.customer_owed(status),
            self.stock_owed(status),
            self.mail_owed(),
        ];
        effects.into_iter().flatten().collect()
    }

    /// The next step of a pending order; afterwards the effect that its payment needs, if any.
    fn money_owed(&self, status: Status) -> Option<Effect> {
        match (status, self.payment()) {
            (Status::Pending, None) => self.detail().and_then(|detail| self.first_step(detail)),
            (_, None) => None,
            (_, Some(payment)) => payment.owed(status),
        }
    }

    fn first_step(&self, detail: &Detail) -> Option<Effect> {
        let Some(priced) = &detail.priced else {
            return Some(Effect::Open {
                customer_id: self.customer_id,
                lines: Arc::clone(&detail.lines),
                not_after: detail.not_after,
            });
        };
        // An order with a total of 0 is confirmed together with its price.
        (priced.total.amount > 0).then(|| Effect::StartPayment {
            ordinal: 1,
            amount: priced.total,
            method: detail.payment_method.clone(),
        })
    }

    fn customer_owed(&self, status: Status) -> Option<Effect> {
        let detail = self.detail().filter(|_| !self.closes.customer)?;
        match status {
            Status::Pending => None,
            Status::Confirmed
            | Status::Processing
            | Status::Shipped
            | Status::Delivered
            | Status::Cancelled
            | Status::Rejected => Some(Effect::CloseCustomer {
                customer_id: self.customer_id,
                confirmed: self.was_confirmed,
                declined: self.rejection == Some(RejectionReason::PaymentDeclined),
                not_after: detail.not_after,
            }),
        }
    }

    fn stock_owed(&self, status: Status) -> Option<Effect> {
        let detail = self.detail().filter(|_| !self.closes.stock)?;
        let (lines, not_after) = (Arc::clone(&detail.lines), detail.not_after);
        match status {
            Status::Pending | Status::Confirmed | Status::Processing => None,
            Status::Shipped | Status::Delivered => Some(Effect::ShipStock { lines, not_after }),
            Status::Cancelled | Status::Rejected => Some(Effect::ReleaseStock { lines, not_after }),
        }
    }
}

impl Payment {
    fn owed(&self, status: Status) -> Option<Effect> {
        let Self { ordinal, amount, refund, .. } = *self;
        let payment_id = Arc::clone(&self.payment_id);
        match self.state {
            PaymentState::Started if status == Status::Pending => {
                Some(Effect::Capture { ordinal, payment_id, amount })
            }
            PaymentState::Started if Bug::PaymentNotSettled.is_planted() => None,
            PaymentState::Started => Some(Effect::Settle { ordinal, payment_id, amount }),
            PaymentState::Captured if status.is_dead() => {
                Some(Effect::Refund { ordinal, refund, payment_id, amount })
            }
            PaymentState::Captured
            | PaymentState::Declined
            | PaymentState::Voided
            | PaymentState::Refunded
            | PaymentState::RefundRefused => None,
        }
    }
}
