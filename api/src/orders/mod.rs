//! Orders: placed, moved on, cancelled, read.

pub mod body;
pub mod cancel;
pub mod change_status;
pub mod get;
pub mod history;
pub mod list;
pub mod place;

use crate::{
    App,
    command::{Answer, Decided, Envelope},
    problem::Problem,
    replay,
};
use axum::{http::StatusCode, response::Response};
use body::OrderBody;
use commands::{
    State,
    order::{Order, Status},
};
use events::LogPosition;
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// Where an order is.
pub fn location(id: Uuid) -> String {
    format!("/api/v1/orders/{id}")
}

/// The answer that shows a decided order, or the problem that a rejected one is to whoever placed it.
pub(crate) async fn answer(
    app: &App,
    envelope: &Envelope,
    mut decided: Decided,
    status: StatusCode,
) -> Result<Response, Problem> {
    let id = decided.snapshot.stream.id;
    let mut order = order_of(&decided)?;
    if order.detail().is_none() {
        // Finished, and its shard has let go of all but the status.
        let within = envelope.prefer.query_wait().max(Duration::from_secs(1));
        decided.snapshot = replay::in_full(app, &decided.snapshot, within).await?;
        order = order_of(&decided)?;
    }
    let position = position(&decided, &order);
    if status == StatusCode::CREATED
        && order.status() == Some(Status::Rejected)
        && let Some(rejected) = order.detail().and_then(|detail| detail.rejected.as_ref())
    {
        let problem = Problem::of_rejection(id, rejected, decided.replayed);
        return Err(problem.with_position(&position));
    }
    let body = OrderBody::of_state(id, &order)
        .ok_or_else(|| Problem::unavailable("the order's history is not complete yet"))?;
    let answer = Answer { status, location: Some(location(id)), body, position };
    Ok(answer.respond(envelope, &decided))
}

/// The order in an answer to a command for an order.
pub(crate) fn order_of(decided: &Decided) -> Result<Arc<Order>, Problem> {
    match &decided.snapshot.state {
        State::Order(order) => Ok(Arc::clone(order)),
        _ => Err(Problem::not_found("order")),
    }
}

/// The order's own position, and those of the events at the customer and the products that its outcome rests on: a query
/// that reflects them all shows the stock as the order left it.
fn position(decided: &Decided, order: &Order) -> LogPosition {
    let detail = order.detail();
    let priced = detail.and_then(|detail| detail.priced.as_ref()).map(|priced| &priced.rests_on);
    let rejected = detail.and_then(|detail| detail.rejected.as_ref()).map(|it| &it.rests_on);
    let rests_on = priced.into_iter().chain(rejected).flat_map(|positions| positions.iter());
    decided.snapshot.position.iter().chain(rests_on).copied().collect()
}
