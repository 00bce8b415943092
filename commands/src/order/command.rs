//! What can be asked of an order.

use super::Status;
use events::{
    Money, Position, Sealed, Timestamp,
    order::{Line, Mail, Rejected},
};
use std::sync::Arc;
use uuid::Uuid;

/// What can be asked of an order.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Place it.
    Place(Place),
    /// Fix its price: the customer is open and all stock is held. Internal.
    Price(Price),
    /// Give it up: the customer or a product said no. Internal.
    Reject(Rejected),
    /// The gateway has created its payment. Internal.
    StartPayment(StartPayment),
    /// The money was taken. Internal.
    RecordCaptured(RecordCaptured),
    /// The gateway declined. Internal.
    RecordDeclined(RecordDeclined),
    /// No money was taken and none can be any more. Internal.
    RecordVoided(RecordVoided),
    /// Its deadline has passed. Internal.
    Expire,
    /// Cancel it.
    Cancel(Cancel),
    /// Move it on, by the staff.
    ChangeStatus(Status),
    /// The money went back. Internal.
    RecordRefund(RecordRefund),
    /// The customer's stream knows how it ended. Internal.
    SettleCustomer,
    /// The products' streams know how it ended. Internal.
    SettleStock,
    /// A letter went out. Internal.
    RecordMailSent(RecordMailSent),
    /// A letter never will. Internal.
    RecordMailRefused(RecordMailRefused),
}

/// Place an order.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// Who orders.
    pub customer_id: Uuid,
    /// What: at least one line, each product once, units at least 1.
    pub lines: Arc<[Line]>,
    /// The gateway's token for the means of payment.
    pub payment_method: Arc<str>,
    /// Where to, sealed with the customer's key.
    pub shipping_address: Option<Sealed>,
    /// When it expires if it is still pending.
    pub deadline: Timestamp,
}

/// A line as its product holds it for the order.
#[derive(Clone, Debug, PartialEq)]
pub struct ReservedLine {
    /// The product.
    pub product_id: Uuid,
    /// Units held.
    pub quantity: i64,
    /// The product's name when they were reserved.
    pub name: Arc<str>,
    /// The price of one when they were reserved.
    pub unit_price: Money,
}

/// Fix the order's price.
#[derive(Clone, Debug, PartialEq)]
pub struct Price {
    /// Whether the customer was VIP when the order was opened there.
    pub vip: bool,
    /// Whether it was their first order then.
    pub first: bool,
    /// What the products hold for the order, in any order.
    pub lines: Arc<[ReservedLine]>,
    /// The events at the customer and the products that this rests on.
    pub rests_on: Arc<[Position]>,
}

/// The gateway has created the payment; money has not moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartPayment {
    /// Which attempt, from 1.
    pub ordinal: u32,
    /// The gateway's id of it.
    pub payment_id: Arc<str>,
}

/// The money was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordCaptured {
    /// Which attempt.
    pub ordinal: u32,
    /// What was taken.
    pub amount: Money,
}

/// The gateway declined the payment, or would not create it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordDeclined {
    /// Which attempt.
    pub ordinal: u32,
    /// The gateway's word for it.
    pub code: Arc<str>,
}

/// No money was taken and none can be any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordVoided {
    /// Which attempt.
    pub ordinal: u32,
}

/// Cancel the order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cancel {
    /// The customer who asks, `None` for the staff. Another's order is not found.
    pub by: Option<Uuid>,
    /// The caller's words.
    pub reason: Option<Arc<str>>,
}

/// The money went back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordRefund {
    /// The attempt whose money went back.
    pub ordinal: u32,
    /// The gateway's id of the refund.
    pub refund_id: Arc<str>,
    /// What went back.
    pub amount: Money,
}

/// A letter went out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordMailSent {
    /// Which.
    pub mail: Mail,
    /// Its Message-ID.
    pub message_id: Arc<str>,
}

/// A letter was refused for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordMailRefused {
    /// Which.
    pub mail: Mail,
    /// Why; nothing personal.
    pub code: Arc<str>,
}

macro_rules! into_command {
    ($($body:ident => $variant:ident),+) => {
        $(impl From<$body> for Command {
            fn from(command: $body) -> Self { Self::$variant(command) }
        })+
    };
}
into_command!(
    Place => Place,
    Price => Price,
    Rejected => Reject,
    StartPayment => StartPayment,
    RecordCaptured => RecordCaptured,
    RecordDeclined => RecordDeclined,
    RecordVoided => RecordVoided,
    Cancel => Cancel,
    Status => ChangeStatus,
    RecordRefund => RecordRefund,
    RecordMailSent => RecordMailSent,
    RecordMailRefused => RecordMailRefused
);
