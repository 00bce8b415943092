//! Products: one row a stream.

mod apply;
mod query;

pub(crate) use apply::Products;
pub use query::{Cursor, Filter};

use events::{Money, Timestamp};
use uuid::Uuid;

/// A product.
#[derive(Clone, Debug, PartialEq)]
pub struct Product {
    /// The id of the product.
    pub product_id: Uuid,
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: Option<String>,
    /// Its category.
    pub category: Option<String>,
    /// The price of one unit.
    pub price: Money,
    /// Units in stock.
    pub on_hand: i64,
    /// Units in stock that are reserved for orders.
    pub reserved: i64,
    /// Units that have been shipped.
    pub shipped: i64,
    /// Whether it is no longer sold: it appears in no list and cannot be ordered.
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
