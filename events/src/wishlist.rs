//! Events of a customer's wishlist. The stream has the customer's id and holds no personal data.

use crate::schema::stream_events;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

stream_events! {
    /// A product was added to the wishlist.
    ItemAdded(ItemAdded) = "WishlistItemAdded" v 1;
    /// A product was removed from the wishlist.
    ItemRemoved(ItemRemoved) = "WishlistItemRemoved" v 1;
    /// The customer is erased: the wishlist is empty, and stays so.
    Cleared(Cleared) = "WishlistCleared" v 1;
}

/// A product was added to the wishlist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ItemAdded {
    /// The product.
    pub product_id: Uuid,
}

/// A product was removed from the wishlist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ItemRemoved {
    /// The product.
    pub product_id: Uuid,
}

/// The customer is erased: the wishlist is empty, and stays so. Written even if it was empty, so that
/// an addition that comes late is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cleared {}
