//! `GET /products/{id}`.

use super::body::ProductBody;
use crate::{
    App,
    causality::Freshness,
    extract::{Params, PathId},
    problem::Problem,
    query::{self, Found, read_one},
};
use axum::{extract::State, response::Response};
use events::StreamId;
use projections::ReadModel;
use std::sync::Arc;

/// A product, from the read model.
#[utoipa::path(
    get,
    path = "/api/v1/products/{id}",
    tag = "products",
    operation_id = "get_product",
    params(("id" = Uuid, Path, description = "The product")),
    responses(
        (status = 200, description = "The product.", body = ProductBody),
        (status = 404, description = "`not-found`"),
    ),
    security(()),
)]
pub async fn get(
    State(app): State<Arc<App>>,
    PathId(id): PathId,
    freshness: Freshness,
    params: Params,
) -> Result<Response, Problem> {
    params.end()?;
    let partitions = query::partition(&app, StreamId::product(id));
    let found = read_one(&app, ReadModel::Products, &partitions, &freshness, |reads| async move {
        reads.product(id).await
    })
    .await?;
    let version = found.value.version;
    let body = Found { value: ProductBody::from(found.value), position: found.position };
    Ok(query::one(&freshness, body, version))
}
