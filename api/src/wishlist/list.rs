//! `GET /wishlist/items`.

use super::WishlistItemBody;
use crate::{
    App,
    auth::Caller,
    causality::Freshness,
    extract::Params,
    problem::Problem,
    query::{self, Cursors, Found, ListBody, PageParams, read_joined},
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
    mut params: Params,
) -> Result<Response, Problem> {
    let customer_id = super::customer(&caller)?;
    let cursors = Cursors::of("wishlist", &customer_id);
    let before = cursors.take(&mut params)?;
    let limit = query::limit(&mut params)?;
    params.end()?;
    let models = [ReadModel::Wishlists, ReadModel::Products];
    let reads = app.reads()?;
    let Found { value, position } = read_joined(reads, &models, &freshness, |reads| async move {
        reads.wishlist(customer_id, before, limit).await
    })
    .await?;
    let page = ListBody::of(value, &cursors, |next| next)?;
    Ok(query::list(&freshness, Found { value: page.map(WishlistItemBody::from), position }))
}
