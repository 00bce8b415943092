//! What happens to an order.

use crate::{Money, Position, Sealed, Timestamp, schema::stream_events};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

stream_events! {
    /// The customer asked for it.
    Placed(Placed) = "OrderPlaced" v 1;
    /// All lines are reserved and the price is fixed.
    Priced(Priced) = "OrderPriced" v 1;
    /// It will not be delivered: refused, declined or expired.
    Rejected(Rejected) = "OrderRejected" v 1;
    /// The gateway knows the payment; from here on money may move.
    PaymentStarted(PaymentStarted) = "PaymentStarted" v 1;
    /// The money was taken.
    PaymentCaptured(PaymentCaptured) = "PaymentCaptured" v 1;
    /// The gateway refused the payment.
    PaymentDeclined(PaymentDeclined) = "PaymentDeclined" v 1;
    /// No money was taken and none can be any more.
    PaymentVoided(PaymentVoided) = "PaymentVoided" v 1;
    /// The shop will deliver it.
    Confirmed(Confirmed) = "OrderConfirmed" v 2;
    /// It is being packed.
    ProcessingStarted(ProcessingStarted) = "OrderProcessingStarted" v 1;
    /// It left the house.
    Shipped(Shipped) = "OrderShipped" v 2;
    /// It arrived.
    Delivered(Delivered) = "OrderDelivered" v 1;
    /// Somebody changed their mind.
    Cancelled(Cancelled) = "OrderCancelled" v 2;
    /// The money went back.
    RefundIssued(RefundIssued) = "RefundIssued" v 1;
    /// The customer's stream knows how the order ended. Bookkeeping.
    CustomerSettled(CustomerSettled) = "OrderCustomerSettled" v 1;
    /// Every product's stream knows how the order ended. Bookkeeping.
    StockSettled(StockSettled) = "OrderStockSettled" v 1;
    /// A letter about it went out. Bookkeeping.
    MailSent(MailSent) = "MailSent" v 1;
    /// A letter about it will never go out. Bookkeeping.
    MailRefused(MailRefused) = "MailRefused" v 1;
}

impl Event {
    /// Whether the order as shown stays the same: neither its `ETag` nor `updated_at` move.
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
            | Self::RefundIssued(_) => false,
            Self::CustomerSettled(_)
            | Self::StockSettled(_)
            | Self::MailSent(_)
            | Self::MailRefused(_) => true,
        }
    }
}

/// A line as asked for; one a product, merged.
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
    /// Who ordered.
    pub customer_id: Uuid,
    /// What, one line a product.
    pub lines: Arc<[Line]>,
    /// The gateway's token for the means of payment.
    pub payment_method: Arc<str>,
    /// Where to, sealed with the customer's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shipping_address: Option<Sealed>,
    /// When an order that is still pending expires.
    pub deadline: Timestamp,
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
    /// What the upper bound takes back; negative.
    Cap,
}

/// One discount of an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Discount {
    /// What for.
    pub kind: DiscountKind,
    /// How much less to pay; negative only for the cap.
    pub amount: Money,
}

/// An order's price is fixed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Priced {
    /// The lines with their prices.
    pub lines: Arc<[PricedLine]>,
    /// The sum of the lines.
    pub subtotal: Money,
    /// The discounts, in the order of the rules, zeros left out.
    pub discounts: Arc<[Discount]>,
    /// The sum of the discounts.
    pub discount: Money,
    /// What is to be paid.
    pub total: Money,
    /// The events at the customer and the products that the price rests on.
    pub rests_on: Arc<[Position]>,
}

/// Why an order was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RejectionReason {
    /// A product had too little free stock.
    InsufficientStock,
    /// A product does not exist, or is sold no more.
    ProductNotFound,
    /// The customer does not exist, or not any more.
    CustomerNotFound,
    /// The subtotal is beyond what money can count.
    ValidationFailed,
    /// The gateway declined the payment.
    PaymentDeclined,
    /// It was still pending at its deadline.
    Expired,
}

impl RejectionReason {
    /// The name as it stands in the event, in the order and in the problem's type.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InsufficientStock => "insufficient-stock",
            Self::ProductNotFound => "product-not-found",
            Self::CustomerNotFound => "customer-not-found",
            Self::ValidationFailed => "validation-failed",
            Self::PaymentDeclined => "payment-declined",
            Self::Expired => "expired",
        }
    }
}

/// An order was rejected. Carries the whole problem, so that the first answer can be given again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rejected {
    /// Why.
    pub reason: RejectionReason,
    /// The product that was short or missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product_id: Option<Uuid>,
    /// Units that were free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<i64>,
    /// Units asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<i64>,
    /// The gateway's word for a declined payment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decline_code: Option<Arc<str>>,
    /// The events at the customer and the products that were seen on the way.
    #[serde(default, skip_serializing_if = "<[Position]>::is_empty")]
    pub rests_on: Arc<[Position]>,
}

/// The gateway has the payment's object; money has not moved yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentStarted {
    /// Which attempt, from 1.
    pub ordinal: u32,
    /// The gateway's id of the payment.
    pub payment_id: Arc<str>,
    /// What will be taken.
    pub amount: Money,
}

/// The money was taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentCaptured {
    /// Which attempt.
    pub ordinal: u32,
    /// What was taken.
    pub amount: Money,
}

/// The gateway declined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentDeclined {
    /// Which attempt.
    pub ordinal: u32,
    /// The gateway's word for it.
    pub code: Arc<str>,
}

/// The payment was given up before money moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentVoided {
    /// Which attempt.
    pub ordinal: u32,
}

/// The order is confirmed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Confirmed {
    /// Whether the customer is owed a letter about it; never in version 1.
    pub mail: bool,
}

/// Packing began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProcessingStarted {}

/// The parcel left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shipped {
    /// Whether the customer is owed a letter about it; never in version 1.
    pub mail: bool,
}

/// The parcel arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Delivered {}

/// The order was cancelled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cancelled {
    /// The caller's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Arc<str>>,
    /// Whether the customer is owed a letter about it; never in version 1.
    pub mail: bool,
}

/// What was captured went back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RefundIssued {
    /// The attempt whose money went back.
    pub ordinal: u32,
    /// The gateway's id of the refund.
    pub refund_id: Arc<str>,
    /// What went back.
    pub amount: Money,
}

/// The customer's stream has the order's end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CustomerSettled {}

/// The products' streams have the order's end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StockSettled {}

/// What a letter to the customer tells.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Mail {
    /// The order is confirmed.
    Confirmed,
    /// It left the house.
    Shipped,
    /// It is cancelled.
    Cancelled,
}

impl Mail {
    /// All of them, in the order in which they can come.
    pub const ALL: [Self; 3] = [Self::Confirmed, Self::Shipped, Self::Cancelled];

    /// The name as it stands in events and Message-IDs: never change it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Shipped => "shipped",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A letter went out, or was put where letters are put.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MailSent {
    /// Which.
    pub mail: Mail,
    /// Its Message-ID, without angle brackets.
    pub message_id: Arc<str>,
}

/// A letter was refused for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MailRefused {
    /// Which.
    pub mail: Mail,
    /// Why: `erased`, `unreadable`, `bad-address`, or the server's code as `smtp-550`. Nothing personal.
    pub code: Arc<str>,
}
