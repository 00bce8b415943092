//! Events of an order.

use crate::{Money, Position, Private, Sealed, Timestamp, schema::stream_events};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

stream_events! {
    /// The order was placed.
    Placed(Placed) = "OrderPlaced" v 2;
    /// All lines are reserved and the price is fixed.
    Priced(Priced) = "OrderPriced" v 1;
    /// The order will not be delivered: it was refused, declined or expired.
    Rejected(Rejected) = "OrderRejected" v 2;
    /// The payment exists at the gateway; from here on money may move.
    PaymentStarted(PaymentStarted) = "PaymentStarted" v 1;
    /// The money was taken.
    PaymentCaptured(PaymentCaptured) = "PaymentCaptured" v 1;
    /// The gateway refused the payment.
    PaymentDeclined(PaymentDeclined) = "PaymentDeclined" v 1;
    /// No money was taken, and none can be taken any more.
    PaymentVoided(PaymentVoided) = "PaymentVoided" v 1;
    /// The order is confirmed: the shop will deliver it.
    Confirmed(Confirmed) = "OrderConfirmed" v 2;
    /// Packing began.
    ProcessingStarted(ProcessingStarted) = "OrderProcessingStarted" v 1;
    /// The parcel was sent.
    Shipped(Shipped) = "OrderShipped" v 2;
    /// The parcel arrived.
    Delivered(Delivered) = "OrderDelivered" v 1;
    /// The order was cancelled.
    Cancelled(Cancelled) = "OrderCancelled" v 3;
    /// The money was refunded.
    RefundIssued(RefundIssued) = "RefundIssued" v 1;
    /// The money was not refunded, although it is due.
    RefundFailed(RefundFailed) = "RefundFailed" v 1;
    /// The customer's stream has closed the order. Bookkeeping.
    CustomerSettled(CustomerSettled) = "OrderCustomerSettled" v 1;
    /// The streams of all products have closed the order. Bookkeeping.
    StockSettled(StockSettled) = "OrderStockSettled" v 1;
    /// An e-mail about the order was sent. Bookkeeping.
    MailSent(MailSent) = "MailSent" v 1;
    /// An e-mail about the order can never be sent. Bookkeeping.
    MailRefused(MailRefused) = "MailRefused" v 1;
}

impl Event {
    /// Whether the event leaves the order, as the API shows it, unchanged: its `ETag` and
    /// `updated_at` stay.
    pub fn is_bookkeeping(&self) -> bool {
        match self {
            Self::Placed(_)
            | Self::Priced(_)
            | Self::Rejected(_)
            | Self::PaymentStarted(_)
            | Self::PaymentCaptured(_)
            | Self::PaymentDeclined(_)
            | Self::PaymentVoided(_)
            | Self::Confirmed(_)
            | Self::ProcessingStarted(_)
            | Self::Shipped(_)
            | Self::Delivered(_)
            | Self::Cancelled(_)
            | Self::RefundIssued(_)
            | Self::RefundFailed(_) => false,
            Self::CustomerSettled(_)
            | Self::StockSettled(_)
            | Self::MailSent(_)
            | Self::MailRefused(_) => true,
        }
    }
}

/// A requested line. An order has one line per product: lines of the same product are merged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Line {
    /// The product.
    pub product_id: Uuid,
    /// Units.
    pub quantity: i64,
}

/// An order was placed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Placed {
    /// The customer who ordered.
    pub customer_id: Uuid,
    /// The requested lines, one per product.
    pub lines: Arc<[Line]>,
    /// The gateway's token for the payment method.
    #[schemars(with = "String")]
    pub payment_method: Private,
    /// Where to send the order, encrypted with the customer's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shipping_address: Option<Sealed>,
    /// When the order expires if it is still pending, by the wall clock.
    pub deadline: Timestamp,
    /// The last moment of log time at which the order may be opened at its customer and products.
    pub not_after: Timestamp,
}

/// A line with the name and price captured at reservation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PricedLine {
    /// The product.
    pub product_id: Uuid,
    /// Its name when it was reserved.
    pub name: Arc<str>,
    /// Units.
    pub quantity: i64,
    /// The price of one when it was reserved.
    pub unit_price: Money,
    /// `quantity` times `unit_price`.
    pub line_total: Money,
}

/// The kind of a discount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DiscountKind {
    /// For VIP customers.
    Vip,
    /// For large orders.
    Volume,
    /// For a customer's first order.
    FirstOrder,
    /// The correction that limits the sum of the discounts; negative.
    Cap,
}

/// One discount of an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Discount {
    /// Why it is given.
    pub kind: DiscountKind,
    /// How much it takes off the subtotal; negative only for the cap.
    pub amount: Money,
}

/// An order's price is fixed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Priced {
    /// The lines with their prices.
    pub lines: Arc<[PricedLine]>,
    /// The sum of the lines.
    pub subtotal: Money,
    /// The discounts, in the order of the rules, without those of 0.
    pub discounts: Arc<[Discount]>,
    /// The sum of the discounts.
    pub discount: Money,
    /// The amount to pay.
    pub total: Money,
    /// The positions of the customer's and products' events that the price depends on.
    pub rests_on: Arc<[Position]>,
}

/// Why an order was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RejectionReason {
    /// A product had too little available stock.
    InsufficientStock,
    /// A product does not exist or is discontinued.
    ProductNotFound,
    /// The customer does not exist or was erased.
    CustomerNotFound,
    /// The subtotal exceeds the largest amount.
    ValidationFailed,
    /// The gateway declined the payment.
    PaymentDeclined,
    /// The order was still pending at its deadline.
    Expired,
    /// The customer has too many other orders that are still pending.
    TooManyOpenOrders,
    /// The gateway declined too many of the customer's payments within an hour.
    TooManyDeclinedPayments,
}

impl RejectionReason {
    /// The name used in the event, in the order and in the problem type.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InsufficientStock => "insufficient-stock",
            Self::ProductNotFound => "product-not-found",
            Self::CustomerNotFound => "customer-not-found",
            Self::ValidationFailed => "validation-failed",
            Self::PaymentDeclined => "payment-declined",
            Self::Expired => "expired",
            Self::TooManyOpenOrders => "too-many-open-orders",
            Self::TooManyDeclinedPayments => "too-many-declined-payments",
        }
    }
}

/// An order was rejected. Holds the whole problem, so that a repeated request gets the first answer
/// again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rejected {
    /// Why.
    pub reason: RejectionReason,
    /// The product that was short or missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product_id: Option<Uuid>,
    /// Units that were available.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<i64>,
    /// Units requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<i64>,
    /// The gateway's code for the declined payment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decline_code: Option<Arc<str>>,
    /// The positions of the customer's and products' events that were read before the rejection.
    #[serde(default, skip_serializing_if = "<[Position]>::is_empty")]
    pub rests_on: Arc<[Position]>,
}

/// The payment was created at the gateway; no money has moved yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentStarted {
    /// Which attempt, from 1.
    pub ordinal: u32,
    /// The gateway's id of the payment.
    pub payment_id: Arc<str>,
    /// The amount to take.
    pub amount: Money,
}

/// The money was taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentCaptured {
    /// Which attempt.
    pub ordinal: u32,
    /// The amount taken.
    pub amount: Money,
}

/// The gateway declined the payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentDeclined {
    /// Which attempt.
    pub ordinal: u32,
    /// The gateway's code for the reason.
    pub code: Arc<str>,
}

/// The payment was cancelled before any money moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentVoided {
    /// Which attempt.
    pub ordinal: u32,
}

/// The order is confirmed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Confirmed {
    /// Whether the shop owes the customer an e-mail about it; `false` for events of version 1.
    pub mail: bool,
}

/// Packing began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProcessingStarted {}

/// The parcel was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shipped {
    /// Whether the shop owes the customer an e-mail about it; `false` for events of version 1.
    pub mail: bool,
}

/// The parcel arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Delivered {}

/// The order was cancelled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cancelled {
    /// The reason that the caller gave, sealed with the customer's key (field `cancel_reason`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Sealed>,
    /// The reason of an event of version 1 or 2, which sealed none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain_reason: Option<Arc<str>>,
    /// Whether the shop owes the customer an e-mail about it; `false` for events of version 1.
    pub mail: bool,
}

/// A captured payment was refunded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RefundIssued {
    /// The attempt whose payment was refunded.
    pub ordinal: u32,
    /// The gateway's id of the refund.
    pub refund_id: Arc<str>,
    /// The amount that the customer has back. Part of it may have been refunded in the gateway's
    /// dashboard before.
    pub amount: Money,
}

/// A refund failed: the gateway refused it, or the bank sent the money back after the gateway had
/// accepted it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RefundFailed {
    /// The attempt whose payment was captured.
    pub ordinal: u32,
    /// Which refund of this payment, from 1.
    pub refund: u32,
    /// The gateway's id of the refund; absent if the gateway refused to make one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refund_id: Option<Arc<str>>,
    /// The gateway's code for the reason.
    pub code: Arc<str>,
    /// Whether the shop tries again. If not, a person must return the money.
    pub again: bool,
}

/// The customer's stream has closed the order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CustomerSettled {}

/// The streams of all products of the order have closed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StockSettled {}

/// The kinds of e-mail that the shop sends to a customer.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Mail {
    /// The order is confirmed.
    Confirmed,
    /// The order is shipped.
    Shipped,
    /// The order is cancelled.
    Cancelled,
}

impl Mail {
    /// All kinds, in the order in which they can be sent.
    pub const ALL: [Self; 3] = [Self::Confirmed, Self::Shipped, Self::Cancelled];

    /// The name used in events and Message-IDs. It must never change.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Shipped => "shipped",
            Self::Cancelled => "cancelled",
        }
    }
}

/// An e-mail was sent, or was written to the mail folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MailSent {
    /// Which e-mail.
    pub mail: Mail,
    /// Its Message-ID, without angle brackets.
    pub message_id: Arc<str>,
}

/// An e-mail was refused permanently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MailRefused {
    /// Which e-mail.
    pub mail: Mail,
    /// Why: `erased`, `unreadable`, `bad-address`, or the mail server's code, such as `smtp-550`.
    /// Contains no personal data.
    pub code: Arc<str>,
}
