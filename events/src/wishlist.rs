//! What a customer wishes for. The stream has the customer's id; nothing personal is in it.

use crate::schema::stream_events;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

stream_events! {
    /// A product is on the list.
    ItemAdded(ItemAdded) = "WishlistItemAdded" v 1;
    /// It no longer is.
    ItemRemoved(ItemRemoved) = "WishlistItemRemoved" v 1;
}

/// A product was put on the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ItemAdded {
    /// The product.
    pub product_id: Uuid,
}

/// A product was taken off the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ItemRemoved {
    /// The product.
    pub product_id: Uuid,
}
