//! Orders: one row a stream.

mod apply;
mod query;

pub(crate) use apply::Orders;
pub use query::{Cursor, Filter};

use events::{Money, Sealed, Timestamp, order::Discount};
use serde::{Deserialize, Serialize};
use std::str::FromStr;
use uuid::Uuid;

/// Where an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Not decided yet.
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
    /// It will not be delivered: refused, declined or expired.
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

/// What becomes of money taken for an order that will not be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refund {
    /// There is nothing to give back.
    None,
    /// Money was taken, or may still have been, and has not gone back yet.
    Pending,
    /// It went back.
    Done,
}

impl Refund {
    /// The name in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pending => "pending",
            Self::Done => "done",
        }
    }
}

/// A line of an order. Name and prices are known once the order is priced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// The product.
    pub product_id: Uuid,
    /// Its name when it was reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Units.
    pub quantity: i64,
    /// The price of one when it was reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit_price: Option<Money>,
    /// `quantity` times `unit_price`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line_total: Option<Money>,
}

/// An order, as its events up to now make it.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// Its id.
    pub order_id: Uuid,
    /// Who ordered.
    pub customer_id: Uuid,
    /// Where it stands.
    pub status: Status,
    /// Its lines.
    pub items: Vec<Item>,
    /// The sum of the lines; `None` until priced, as are the next ones.
    pub subtotal: Option<Money>,
    /// The sum of the discounts.
    pub discount: Option<Money>,
    /// The discounts, in the order of the rules.
    pub discounts: Vec<Discount>,
    /// What is paid.
    pub total: Option<Money>,
    /// The gateway's token for the means of payment.
    pub payment_method: String,
    /// The gateway's id of the payment, once there is one.
    pub payment_id: Option<String>,
    /// What becomes of money taken, if the order is dead.
    pub refund: Refund,
    /// Why it was rejected (a problem's name or `expired`) or cancelled (the caller's words).
    pub reason: Option<String>,
    /// Where to, sealed with the customer's key (field `shipping_address`).
    pub shipping_address: Option<Sealed>,
    /// When it was placed.
    pub placed_at: Timestamp,
    /// The time of the last event that changed what is shown here.
    pub updated_at: Timestamp,
    /// The stream version of that event: the `ETag`.
    pub version: u64,
}
