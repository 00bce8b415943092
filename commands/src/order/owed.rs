//! What an order still owes the world: a pure function of its state.
//!
//! Every obligation here was created by an event, and ends in one. A new kind of effect therefore needs a new event, or a new
//! field in one, to create it: never owe something new for the history there is. `golden.json` holds old histories and what
//! they owe.

use super::{Detail, Order, Payment, PaymentState, Status};
use crate::aggregate::EffectId;
use chrono::TimeDelta;
use events::{
    Money, Timestamp,
    order::{Line, Mail},
    planted::Bug,
};
use std::sync::Arc;
use uuid::Uuid;

/// How long after an order's deadline its opens elsewhere are still accepted: an outage up to this long costs no order its
/// chance. Closes are remembered as long, so it bounds what a product remembers too. Never lower it: closes already written
/// would be forgotten before the opens they stand against are too late.
const OPEN_BEYOND_DEADLINE: TimeDelta = TimeDelta::hours(1);

/// What an order owes the world.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Open the order at the customer and hold stock for every line, in the global order of products; then price it, or
    /// reject it.
    Open {
        /// Whose order it is.
        customer_id: Uuid,
        /// What to hold.
        lines: Arc<[Line]>,
        /// The last moment of log time to do so.
        not_after: Timestamp,
    },
    /// Create the payment at the gateway, without taking money.
    StartPayment {
        /// Which attempt, from 1.
        ordinal: u32,
        /// What is to be taken.
        amount: Money,
        /// The gateway's token for the means of payment.
        method: Arc<str>,
    },
    /// Take the money.
    Capture {
        /// Which attempt.
        ordinal: u32,
        /// The gateway's id of the payment.
        payment_id: Arc<str>,
        /// What is to be taken.
        amount: Money,
    },
    /// The order is dead and money may be on its way: find out, and prevent it where that is still possible. Ends in a
    /// captured or a voided payment, however long it takes.
    Settle {
        /// Which attempt.
        ordinal: u32,
        /// The gateway's id of the payment.
        payment_id: Arc<str>,
        /// What was to be taken.
        amount: Money,
    },
    /// Give the money back.
    Refund {
        /// The attempt whose money it is.
        ordinal: u32,
        /// The gateway's id of the payment.
        payment_id: Arc<str>,
        /// What was taken.
        amount: Money,
    },
    /// Tell the customer's stream how the order ended.
    CloseCustomer {
        /// Whose order it is.
        customer_id: Uuid,
        /// Whether it was confirmed.
        confirmed: bool,
        /// The `not_after` of the open.
        not_after: Timestamp,
    },
    /// Release the stock of every product, whether it was held or not.
    ReleaseStock {
        /// The products, with what was asked for.
        lines: Arc<[Line]>,
        /// The `not_after` of the reservations.
        not_after: Timestamp,
    },
    /// Ship the stock of every product.
    ShipStock {
        /// The products, with what was asked for.
        lines: Arc<[Line]>,
        /// The `not_after` of the reservations.
        not_after: Timestamp,
    },
    /// Write to the customer.
    Mail {
        /// What about.
        mail: Mail,
        /// Whose order it is.
        customer_id: Uuid,
    },
}

impl Effect {
    /// Names the effect among those of its order.
    pub fn id(&self) -> EffectId {
        let (name, ordinal) = match self {
            Self::Open { .. } => ("open", 0),
            Self::StartPayment { ordinal, .. } => ("start-payment", *ordinal),
            Self::Capture { ordinal, .. } => ("capture", *ordinal),
            Self::Settle { ordinal, .. } => ("settle", *ordinal),
            Self::Refund { ordinal, .. } => ("refund", *ordinal),
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
    /// What it owes now. The order's own id is that of its stream.
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

    /// The one next step before an order is decided; afterwards what its money needs.
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
                not_after: not_after(detail),
            });
        };
        // An order that costs nothing is confirmed with its price.
        (priced.total.amount > 0).then(|| Effect::StartPayment {
            ordinal: 1,
            amount: priced.total,
            method: Arc::clone(&detail.payment_method),
        })
    }

    fn customer_owed(&self, status: Status) -> Option<Effect> {
        let detail = self.detail().filter(|_| !self.settled.customer)?;
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
                not_after: not_after(detail),
            }),
        }
    }

    fn stock_owed(&self, status: Status) -> Option<Effect> {
        let detail = self.detail().filter(|_| !self.settled.stock)?;
        let (lines, not_after) = (Arc::clone(&detail.lines), not_after(detail));
        match status {
            Status::Pending | Status::Confirmed | Status::Processing => None,
            Status::Shipped | Status::Delivered => Some(Effect::ShipStock { lines, not_after }),
            Status::Cancelled | Status::Rejected => Some(Effect::ReleaseStock { lines, not_after }),
        }
    }
}

impl Payment {
    fn owed(&self, status: Status) -> Option<Effect> {
        let Self { ordinal, amount, .. } = *self;
        let payment_id = Arc::clone(&self.payment_id);
        match self.state {
            PaymentState::Started if status == Status::Pending => {
                Some(Effect::Capture { ordinal, payment_id, amount })
            }
            PaymentState::Started if Bug::PaymentNotSettled.is_planted() => None,
            PaymentState::Started => Some(Effect::Settle { ordinal, payment_id, amount }),
            PaymentState::Captured if status.is_dead() => {
                Some(Effect::Refund { ordinal, payment_id, amount })
            }
            PaymentState::Captured
            | PaymentState::Declined
            | PaymentState::Voided
            | PaymentState::Refunded => None,
        }
    }
}

fn not_after(detail: &Detail) -> Timestamp {
    detail.deadline.checked_add_signed(OPEN_BEYOND_DEADLINE).unwrap_or(Timestamp::MAX_UTC)
}
