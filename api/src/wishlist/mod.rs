//! A customer's wishlist: added to, taken from, read. By the customer only.

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

/// Where the items are.
pub const LOCATION: &str = "/api/v1/wishlist/items";

/// An item of a wishlist, with its product as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = WishlistItem)]
pub struct WishlistItemBody {
    /// When it came on the list.
    pub added_at: DateTime<Utc>,
    /// The product. One that is discontinued stays on the list, and says so.
    #[serde(flatten)]
    pub product: ProductBody,
}

impl From<Item> for WishlistItemBody {
    fn from(item: Item) -> Self {
        Self { added_at: item.added_at, product: item.product.into() }
    }
}

/// The customer who calls: neither staff nor anybody else has a wishlist.
fn customer(caller: &Caller) -> Result<Uuid, Problem> {
    let principal = caller.principal()?;
    let customer = principal.customer_id().filter(|_| principal.role == Role::Customer);
    customer.ok_or_else(|| Problem::new(Kind::Forbidden, "only a customer has a wishlist"))
}
