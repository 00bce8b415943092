//! Orders: one row a stream.

mod apply;
mod query;

pub(crate) use apply::Orders;
pub use query::{Cursor, Filter};

use events::{Money, Private, Sealed, Timestamp, order::Discount};
use serde::{Deserialize, Serialize};
use std::str::FromStr;
use uuid::Uuid;

/// The status of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// The shop has not decided yet.
    Pending,
    /// The shop will deliver the order.
    Confirmed,
    /// The order is being packed.
    Processing,
    /// The order has left the warehouse.
    Shipped,
    /// The order has arrived.
    Delivered,
    /// The customer or the staff cancelled the order.
    Cancelled,
    /// The shop will not deliver the order: it was refused, its payment was declined, or it
    /// expired.
    Rejected,
}

impl Status {
    const ALL: [Self; 7] = [
        Self::Pending,
        Self::Confirmed,
        Self::Processing,
        Self::Shipped,
        Self::Delivered,
        Self::Cancelled,
        Self::Rejected,
    ];

    /// The name in answers, filters and rows.
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
}

/// No status has this name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no order has this status")]
pub struct UnknownStatus;

impl FromStr for Status {
    type Err = UnknownStatus;

    fn from_str(name: &str) -> Result<Self, UnknownStatus> {
        Self::ALL.into_iter().find(|status| status.as_str() == name).ok_or(UnknownStatus)
    }
}

/// The refund of money taken for an order that will not be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refund {
    /// There is nothing to refund.
    None,
    /// Money was taken, or may have been, and is not refunded yet.
    Pending,
    /// The money was refunded.
    Done,
    /// A refund failed.
    Failed,
}

impl Refund {
    /// The name in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pending => "pending",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// A line of an order. Its name and prices are known once the order is priced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// The product.
    pub product_id: Uuid,
    /// The product's name when it was reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Units.
    pub quantity: i64,
    /// The price of one unit when it was reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit_price: Option<Money>,
    /// `quantity` times `unit_price`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line_total: Option<Money>,
}

/// An order.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// The id of the order.
    pub order_id: Uuid,
    /// The customer who ordered.
    pub customer_id: Uuid,
    /// The status.
    pub status: Status,
    /// The lines.
    pub items: Vec<Item>,
    /// The sum of the lines. This and the next amounts are `None` until the order is priced.
    pub subtotal: Option<Money>,
    /// The sum of the discounts.
    pub discount: Option<Money>,
    /// The discounts, in the order of the rules.
    pub discounts: Vec<Discount>,
    /// The amount to pay.
    pub total: Option<Money>,
    /// The gateway's token for the means of payment.
    pub payment_method: Private,
    /// The gateway's id of the payment, once it has started.
    pub payment_id: Option<String>,
    /// The refund, if the order was cancelled or rejected.
    pub refund: Refund,
    /// Why the order was rejected (the name of a problem, or `expired`) or cancelled (the caller's
    /// words).
    pub reason: Option<String>,
    /// Why it was cancelled, sealed with the customer's key (field `cancel_reason`); `None` for an
    /// order that was cancelled before reasons were sealed.
    pub sealed_reason: Option<Sealed>,
    /// The delivery address, sealed with the customer's key (field `shipping_address`).
    pub shipping_address: Option<Sealed>,
    /// When the order was placed.
    pub placed_at: Timestamp,
    /// The time of the last event that changed what is shown here.
    pub updated_at: Timestamp,
    /// The stream version of that event: the `ETag`.
    pub version: u64,
}
