//! `GET /wishlist/items`.

use super::WishlistItemBody;
use crate::{
    App,
    auth::Caller,
    causality::Freshness,
    extract::Params,
    problem::Problem,
    query::{ListBody, PageParams, PageRequest, read_joined},
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
    responses((status = 200, description = "A page of items.", body = ListBody<WishlistItemBody>)),
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
    let models = [ReadModel::Wishlists, ReadModel::Products];
    let found = read_joined(app.reads()?, &models, &freshness, |reads| async move {
        reads.wishlist(customer_id, before, limit).await
    })
    .await?;
    page.answer(&freshness, found, |next| next, WishlistItemBody::from)
}
