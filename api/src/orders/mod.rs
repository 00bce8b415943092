//! The endpoints of orders.

pub mod body;
pub mod cancel;
pub mod change_status;
pub mod get;
pub mod history;
pub mod list;
pub mod listen;
pub mod place;

use crate::{
    App,
    command::{Answer, Decided, Envelope},
    problem::Problem,
    replay,
};
use axum::{http::StatusCode, response::Response};
use body::{OrderBody, SealedOrder};
use commands::{State, order::Order};
use events::LogPosition;
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// The path of an order.
pub fn location(id: Uuid) -> String {
    format!("/api/v1/orders/{id}")
}

/// A decided order with the body that shows it.
pub(crate) struct Shown {
    /// The decision, with all details of the order.
    pub decided: Decided,
    /// The order as the answer shows it.
    pub body: OrderBody,
    /// The position that a later query must reflect to show this order.
    pub position: LogPosition,
}

/// Makes the body of a decided order. The shard keeps only the status of a finished order; the
/// other details are then read from its history.
pub(crate) async fn show(
    app: &App,
    envelope: &Envelope,
    mut decided: Decided,
) -> Result<Shown, Problem> {
    let mut order = order_of(&decided)?;
    if order.detail().is_none() {
        let within = envelope.prefer.query_wait().max(Duration::from_secs(1));
        decided.view = replay::in_full(app, &decided.view, within).await?;
        order = order_of(&decided)?;
    }
    let position = position(&decided, &order);
    let sealed = SealedOrder::of_state(decided.view.stream.id, &order)
        .ok_or_else(|| Problem::unavailable("the order's history is not complete yet"))?;
    let body = body::open(app, sealed.without_address()).await?;
    Ok(Shown { decided, body, position })
}

impl Shown {
    /// The answer with the order.
    fn respond(self, envelope: &Envelope, status: StatusCode) -> Response {
        let Self { decided, body, position } = self;
        let location = Some(location(body.order_id));
        Answer { status, location, body, position }.respond(envelope, &decided)
    }
}

/// The order that a command for an order decided on.
pub(crate) fn order_of(decided: &Decided) -> Result<Arc<Order>, Problem> {
    match &decided.view.state {
        State::Order(order) => Ok(Arc::clone(order)),
        _ => Err(Problem::not_found("order")),
    }
}

/// The order's own position, and the positions of the customer's and the products' events that its
/// outcome rests on. A query that reflects them all shows the stock as the order left it.
fn position(decided: &Decided, order: &Order) -> LogPosition {
    let detail = order.detail();
    let priced = detail.and_then(|detail| detail.priced.as_ref()).map(|priced| &priced.rests_on);
    let rejected = detail.and_then(|detail| detail.rejected.as_ref()).map(|it| &it.rests_on);
    let rests_on = priced.into_iter().chain(rejected).flat_map(|positions| positions.iter());
    decided.view.position.iter().chain(rests_on).copied().collect()
}
