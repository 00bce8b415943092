//! The commands of an order.

use super::Status;
use crate::{aggregate::into_command, pricing::DiscountRules};
use events::{
    Money, Position, Private, Sealed, Timestamp,
    order::{Line, Mail, Rejected},
};
use std::sync::Arc;
use uuid::Uuid;

/// A command for an order. Internal commands are sent by the program only.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Place it.
    Place(Place),
    /// Set its price: the customer has opened it and all stock is reserved. Internal.
    Price(Price),
    /// Reject it: the customer or a product refused. Internal.
    Reject(Rejected),
    /// Record that the gateway has created its payment. Internal.
    StartPayment(StartPayment),
    /// Record that the payment was captured. Internal.
    RecordCaptured(RecordCaptured),
    /// Record that the gateway declined the payment. Internal.
    RecordDeclined(RecordDeclined),
    /// Record that the payment was voided: no money was taken and none can be any more. Internal.
    RecordVoided(RecordVoided),
    /// Reject it if it is still pending: its deadline has passed. Internal.
    Expire,
    /// Cancel it.
    Cancel(Cancel),
    /// Change its status, on behalf of the staff.
    ChangeStatus(Status),
    /// Record that the gateway has refunded the payment. Internal.
    RecordRefund(RecordRefund),
    /// Record that a refund failed. Internal.
    RecordRefundFailed(RecordRefundFailed),
    /// Record that the customer's stream has closed the order. Internal.
    RecordCustomerClosed,
    /// Record that the products' streams have closed the order. Internal.
    RecordStockClosed,
    /// Record that a letter was sent. Internal.
    RecordMailSent(RecordMailSent),
    /// Record that a letter was refused and will never be sent. Internal.
    RecordMailRefused(RecordMailRefused),
}

/// Place an order.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// The customer who places it.
    pub customer_id: Uuid,
    /// The lines: at least one, each product once, at least 1 unit each.
    pub lines: Arc<[Line]>,
    /// The gateway's token for the payment method.
    pub payment_method: Private,
    /// The address, sealed with the customer's key.
    pub shipping_address: Option<Sealed>,
    /// The order expires at this moment if it is still pending.
    pub deadline: Timestamp,
}

/// A line as the product has reserved it.
#[derive(Clone, Debug, PartialEq)]
pub struct ReservedLine {
    /// The product.
    pub product_id: Uuid,
    /// The number of units.
    pub quantity: i64,
    /// The product's name when they were reserved.
    pub name: Arc<str>,
    /// The price of one unit when they were reserved.
    pub unit_price: Money,
}

/// Set the order's price.
#[derive(Clone, Debug, PartialEq)]
pub struct Price {
    /// Whether the customer was VIP when the customer's stream opened the order.
    pub vip: bool,
    /// Whether it was the customer's first order at that moment.
    pub first: bool,
    /// The amounts of the discounts.
    pub discounts: DiscountRules,
    /// The lines that the products have reserved, in any order.
    pub lines: Arc<[ReservedLine]>,
    /// The positions of the customer's and the products' events that the price depends on.
    pub rests_on: Arc<[Position]>,
}

/// Record that the gateway has created the payment. No money has moved yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartPayment {
    /// The attempt, from 1.
    pub ordinal: u32,
    /// The gateway's id of the payment.
    pub payment_id: Arc<str>,
}

/// Record that the payment was captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordCaptured {
    /// The attempt.
    pub ordinal: u32,
    /// The amount that was captured.
    pub amount: Money,
}

/// Record that the gateway declined the payment, or refused to create it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordDeclined {
    /// The attempt.
    pub ordinal: u32,
    /// The gateway's code for the reason.
    pub code: Arc<str>,
}

/// Record that the payment was voided: no money was taken and none can be any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordVoided {
    /// The attempt.
    pub ordinal: u32,
}

/// Cancel the order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cancel {
    /// The customer who cancels; `None` for the staff. If the order belongs to another customer,
    /// the refusal is [`NotFound`](super::Refusal::NotFound).
    pub by: Option<Uuid>,
    /// The reason that the caller gave, sealed.
    pub reason: Option<Sealed>,
}

/// Record that a refund failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordRefundFailed {
    /// The attempt whose money should be refunded.
    pub ordinal: u32,
    /// Which refund of it, from 1.
    pub refund: u32,
    /// The gateway's id of the refund that failed; `None` if the gateway refuses to make one.
    pub refund_id: Option<Arc<str>>,
    /// The gateway's code for the reason.
    pub code: Arc<str>,
}

/// Record that the gateway has refunded the payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordRefund {
    /// The attempt whose money was refunded.
    pub ordinal: u32,
    /// The gateway's id of the refund.
    pub refund_id: Arc<str>,
    /// The amount that was refunded.
    pub amount: Money,
}

/// Record that a letter was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordMailSent {
    /// The letter.
    pub mail: Mail,
    /// Its Message-ID.
    pub message_id: Arc<str>,
}

/// Record that a letter was refused and will never be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordMailRefused {
    /// The letter.
    pub mail: Mail,
    /// The reason, without personal data.
    pub code: Arc<str>,
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
    RecordRefundFailed => RecordRefundFailed,
    RecordMailSent => RecordMailSent,
    RecordMailRefused => RecordMailRefused
);
