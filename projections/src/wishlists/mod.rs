//! Wishlists: one row an item. Name, price and stock of the product are read when the list is
//! queried.

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
    /// When it was added to the list.
    pub added_at: Timestamp,
    /// Its place in the list, the highest first.
    pub version: u64,
}
