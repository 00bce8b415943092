//! Wishlists: one row an item. Name, price and stock of the product are looked up when they are asked for.

mod apply;
mod query;

pub(crate) use apply::Wishlists;

use crate::products::Product;
use events::Timestamp;

/// An item of a wishlist.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The product as it is now.
    pub product: Product,
    /// When it came on the list.
    pub added_at: Timestamp,
    /// Its place in the list, the highest first.
    pub version: u64,
}
