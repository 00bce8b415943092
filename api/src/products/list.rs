//! `GET /products`.

use super::body::ProductBody;
use crate::{
    App,
    causality::Freshness,
    extract::Params,
    problem::Problem,
    query::{self, ListBody, PageParams, PageRequest},
};
use axum::{extract::State, response::Response};
use projections::{
    ReadModel,
    products::{Cursor, Filter},
};
use std::sync::Arc;

/// List the products of the catalogue, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/products",
    tag = "products",
    operation_id = "list_products",
    params(
        ("category" = Option<String>, Query, description = "Only products of this category"),
        PageParams,
    ),
    responses((status = 200, description = "A page of products.", body = ListBody<ProductBody>)),
    security(()),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    freshness: Freshness,
    mut params: Params,
) -> Result<Response, Problem> {
    let filter = Filter { category: params.one("category")? };
    let page = PageRequest::of(&app, "products", &filter, params)?;
    let after = page.after.map(|(created_at, product_id)| Cursor { created_at, product_id });
    let limit = page.limit;
    let found = query::read(app.reads()?, ReadModel::Products, &freshness, |reads| async move {
        reads.products(&filter, after, limit).await
    })
    .await?;
    let at = |next: Cursor| (next.created_at, next.product_id);
    page.answer(&freshness, found, at, ProductBody::from)
}
