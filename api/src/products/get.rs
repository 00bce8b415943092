//! `GET /products/{id}`.

use super::body::ProductBody;
use crate::{
    App, as_of,
    auth::{Access, Caller, Role},
    causality::Freshness,
    extract::{Params, PublicId},
    problem::Problem,
    query,
};
use axum::{extract, response::Response};
use commands::State;
use events::StreamId;
use projections::{ReadModel, ReadModels};
use std::sync::Arc;

/// Get a product.
#[utoipa::path(
    get,
    path = "/api/v1/products/{id}",
    tag = "products",
    operation_id = "get_product",
    params(
        ("id" = Uuid, Path, description = "The product"),
        (
            "as_of" = Option<String>, Query,
            description = "Show the product as it was at this time or Log-Position; staff only"
        ),
    ),
    responses(
        (status = 200, description = "The product.", body = ProductBody),
        (status = 400, description = "`invalid-parameter`"),
        (status = 403, description = "`forbidden`: `as_of` is for staff"),
        (status = 404, description = "`not-found`"),
    ),
    security(()),
)]
pub async fn get(
    extract::State(app): extract::State<Arc<App>>,
    caller: Caller,
    PublicId(id): PublicId,
    freshness: Freshness,
    mut params: Params,
) -> Result<Response, Problem> {
    let moment = as_of::moment(&mut params)?;
    params.end()?;
    let stream = StreamId::product(id);
    if let Some(moment) = moment {
        // It folds the product's whole history, and looks into the log.
        caller.require(Access::AtLeast(Role::Staff))?;
        let found = as_of::read(&app, stream, &moment, &freshness, |state| match state {
            State::Product(product) => ProductBody::of_state(id, product),
            _ => None,
        });
        return Ok(query::one(&freshness, found.await?));
    }
    let version = |reads: ReadModels| async move { reads.product_version(id).await };
    let row = |reads: ReadModels| async move { reads.product(id).await };
    let model = ReadModel::Products;
    let show = async |row| Ok(ProductBody::from(row));
    let found = query::get(&app, model, stream, &freshness, version, row, show);
    Ok(query::for_everybody(found.await?))
}
