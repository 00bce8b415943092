//! `GET /wishlist/items`.

use super::WishlistItemBody;
use crate::{
    App,
    auth::Caller,
    causality::Freshness,
    customers,
    extract::Params,
    problem::{Kind, Problem},
    query::{Found, ListBody, PageParams, PageRequest, read_joined},
};
use axum::{extract::State, response::Response};
use projections::ReadModel;
use std::sync::Arc;

/// List the caller's wishlist, newest first, with the products as they are now.
#[utoipa::path(
    get,
    path = "/api/v1/wishlist/items",
    tag = "wishlist",
    operation_id = "list_wishlist",
    params(PageParams),
    responses(
        (status = 200, description = "A page of items.", body = ListBody<WishlistItemBody>),
        (status = 410, description = "`gone`: the customer is erased"),
    ),
    security(("bearer" = ["customer"])),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    freshness: Freshness,
    params: Params,
) -> Result<Response, Problem> {
    let customer_id = super::customer(&caller)?;
    let page = PageRequest::of(&app, "wishlist", &customer_id, params)?;
    let (before, limit) = (page.after, page.limit);
    let models = [ReadModel::Wishlists, ReadModel::Products, ReadModel::Customers];
    let found = read_joined(app.reads()?, &models, &freshness, |reads| async move {
        let customer = reads.customer(customer_id).await?;
        Ok((customer, reads.wishlist(customer_id, before, limit).await?))
    })
    .await?;
    let (customer, items) = found.value;
    // The key is gone before the read model says so.
    if let Some(customer) = customer
        && (customer.is_erased() || customers::key(&app, customer_id).await?.is_none())
    {
        return Err(Kind::Gone.into());
    }
    let found = Found { value: items, position: found.position };
    page.answer(&freshness, found, |next| next, WishlistItemBody::from)
}
