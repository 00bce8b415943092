//! Products: one row a stream.

mod apply;
mod query;

pub(crate) use apply::Products;
pub use query::{Cursor, Filter};

use events::{Money, Timestamp};
use uuid::Uuid;

/// A product, as its events up to now make it.
#[derive(Clone, Debug, PartialEq)]
pub struct Product {
    /// Its id.
    pub product_id: Uuid,
    /// What it is called.
    pub name: String,
    /// A text about it.
    pub description: Option<String>,
    /// The shelf it stands on.
    pub category: Option<String>,
    /// The price of one.
    pub price: Money,
    /// Units in the house.
    pub on_hand: i64,
    /// Units of these held for orders.
    pub reserved: i64,
    /// Units that have left the house.
    pub shipped: i64,
    /// Whether it is no longer sold: it is in no list, and cannot be ordered.
    pub discontinued: bool,
    /// When it was added.
    pub created_at: Timestamp,
    /// The time of the last event that changed what is shown here.
    pub updated_at: Timestamp,
    /// The stream version of that event: the `ETag`.
    pub version: u64,
}

impl Product {
    /// Units that can be ordered.
    pub fn available(&self) -> i64 {
        self.on_hand.saturating_sub(self.reserved)
    }
}
