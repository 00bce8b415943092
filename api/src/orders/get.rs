//! `GET /orders/{id}`.

use super::body::OrderBody;
use crate::{
    App,
    auth::Caller,
    causality::Freshness,
    extract::{Params, PathId},
    problem::Problem,
    query::{self, Found, read_one},
};
use axum::{extract::State, response::Response};
use events::StreamId;
use projections::{ReadModel, orders::Order};
use std::sync::Arc;
use uuid::Uuid;

/// An order, from the read model. Another customer's is not found.
#[utoipa::path(
    get,
    path = "/api/v1/orders/{id}",
    tag = "orders",
    operation_id = "get_order",
    params(("id" = Uuid, Path, description = "The order")),
    responses(
        (status = 200, description = "The order.", body = OrderBody),
        (status = 404, description = "`not-found`"),
    ),
)]
pub async fn get(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId,
    freshness: Freshness,
    params: Params,
) -> Result<Response, Problem> {
    let owner = caller.owner()?;
    params.end()?;
    let found = visible(&app, id, owner, &freshness).await?;
    let version = found.value.version;
    let body = Found { value: OrderBody::from(found.value), position: found.position };
    Ok(query::one(&freshness, body, version))
}

/// The order, if it belongs to `owner` or nobody asks for an owner.
pub(super) async fn visible(
    app: &App,
    id: Uuid,
    owner: Option<Uuid>,
    freshness: &Freshness,
) -> Result<Found<Order>, Problem> {
    let partitions = query::partition(app, StreamId::order(id));
    read_one(app, ReadModel::Orders, &partitions, freshness, |reads| async move {
        reads.order(id, owner).await
    })
    .await
}
