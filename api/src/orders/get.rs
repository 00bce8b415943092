//! `GET /orders/{id}`.

use super::body::{self, OrderBody, SealedOrder};
use crate::{
    App, as_of,
    auth::Caller,
    causality::Freshness,
    extract::{Params, PathId},
    problem::Problem,
    query::{self, Found, read_one},
};
use axum::{extract, response::Response};
use commands::State;
use events::StreamId;
use projections::{ReadModel, ReadModels, orders::Order};
use std::sync::Arc;
use uuid::Uuid;

/// Get an order.
///
/// A customer sees their own orders only: another customer's order is `not-found`. The shipping
/// address is shown until the customer is erased.
#[utoipa::path(
    get,
    path = "/api/v1/orders/{id}",
    tag = "orders",
    operation_id = "get_order",
    params(
        ("id" = Uuid, Path, description = "The order"),
        (
            "as_of" = Option<String>, Query,
            description = "Show the order as it was at this time or Log-Position"
        ),
    ),
    responses(
        (status = 200, description = "The order.", body = OrderBody),
        (status = 400, description = "`invalid-parameter`"),
        (status = 404, description = "`not-found`"),
    ),
    security(("bearer" = ["customer"])),
)]
pub async fn get(
    extract::State(app): extract::State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId,
    freshness: Freshness,
    mut params: Params,
) -> Result<Response, Problem> {
    let owner = caller.owner()?;
    let moment = as_of::moment(&mut params)?;
    params.end()?;
    let stream = StreamId::order(id);
    if let Some(moment) = moment {
        let found = as_of::read(&app, stream, &moment, &freshness, |state| match state {
            State::Order(order) => SealedOrder::of_state(id, order)
                .filter(|order| owner.is_none_or(|owner| owner == order.customer_id())),
            _ => None,
        })
        .await?;
        let value = body::open(&app, found.value).await?;
        return Ok(query::one(&freshness, Found { value, position: found.position }));
    }
    let version = |reads: ReadModels| async move { reads.order_version(id, owner).await };
    let row = |reads: ReadModels| async move { reads.order(id, owner).await };
    let show = async |row: Order| body::open(&app, row.into()).await;
    query::get(&app, ReadModel::Orders, stream, &freshness, version, row, show).await
}

/// The order, if it belongs to `owner`; without an owner, whoever it belongs to.
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
