//! The endpoints of a customer's wishlist, which only the customer can use.

pub mod add;
pub mod list;
pub mod remove;

use crate::{
    auth::{Caller, Role},
    problem::{Kind, Problem},
    products::body::ProductBody,
};
use chrono::{DateTime, Utc};
use projections::wishlists::Item;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// The path of the items.
pub const LOCATION: &str = "/api/v1/wishlist/items";

/// An item of a wishlist, with its product as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = WishlistItem)]
pub struct WishlistItemBody {
    /// When the product was added to the wishlist.
    pub added_at: DateTime<Utc>,
    /// The product. A discontinued product stays on the wishlist, with `discontinued` true.
    #[serde(flatten)]
    pub product: ProductBody,
}

impl From<Item> for WishlistItemBody {
    fn from(item: Item) -> Self {
        Self { added_at: item.added_at, product: item.product.into() }
    }
}

/// The calling customer. No other role has a wishlist.
fn customer(caller: &Caller) -> Result<Uuid, Problem> {
    let principal = caller.principal()?;
    let customer = principal.customer_id().filter(|_| principal.role == Role::Customer);
    customer.ok_or_else(|| Problem::new(Kind::Forbidden, "only a customer has a wishlist"))
}
