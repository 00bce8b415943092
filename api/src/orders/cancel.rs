//! `POST /orders/{id}/cancel`.

use super::{Shown, body::OrderBody, order_of};
use crate::{
    App,
    auth::{Access, Role},
    command::{self, CommandBody, Decided, Received, carry_out, detached},
    customers,
    extract::{Media, PathId},
    problem::Problem,
    validate::{SHORT_TEXT, Validator},
};
use axum::{extract::State, http::StatusCode, response::Response};
use commands::{
    State as AggregateState,
    order::{CANCEL_REASON, Cancel, Command, RefundState},
};
use events::{Private, Sealed, StreamId};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use utoipa::ToSchema;
use uuid::Uuid;

/// Pause between two checks whether the refund is done, while a caller waits for it.
const REFUND_POLL: Duration = Duration::from_millis(50);

/// The request to cancel an order.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelOrderRequest {
    /// Why the order is cancelled. Unreadable once the customer is erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 200)]
    #[schema(example = "ordered twice")]
    pub reason: Option<Private>,
}

impl CommandBody for CancelOrderRequest {
    const ACCESS: Access = Access::AtLeast(Role::Customer);
    const MEDIA: Media = Media::OptionalJson;
}

/// Cancel an order.
///
/// Reserved stock becomes available again and captured money is refunded. With `Prefer: wait=N`
/// the answer waits up to N seconds for the refund.
#[utoipa::path(
    post,
    path = "/api/v1/orders/{id}/cancel",
    tag = "orders",
    operation_id = "cancel_order",
    params(("id" = Uuid, Path, description = "The order")),
    request_body = Option<CancelOrderRequest>,
    responses(
        (status = 200, description = "The order is cancelled.", body = OrderBody),
        (
            status = 404,
            description = "`not-found`: there is no such order, or it is another customer's",
        ),
        (status = 409, description = "`illegal-transition`: the order has already been shipped"),
    ),
    security(("bearer" = ["customer"])),
)]
pub async fn cancel(
    State(app): State<Arc<App>>,
    PathId(id): PathId,
    received: Received<CancelOrderRequest>,
) -> Result<Response, Problem> {
    detached(cancel_order(app, id, received)).await
}

async fn cancel_order(
    app: Arc<App>,
    id: Uuid,
    Received { body, envelope }: Received<CancelOrderRequest>,
) -> Result<Response, Problem> {
    let by = envelope.caller.owner()?;
    let mut validator = Validator::default();
    let reason =
        validator.optional(body.reason.as_ref().map(Private::reveal), "/reason", SHORT_TEXT);
    validator.end()?;
    let reason = seal(&app, id, reason).await?;
    let command = Command::from(Cancel { by, reason });
    let decided = carry_out(&app, &envelope, StreamId::order(id), command).await?;
    let mut shown = super::show(&app, &envelope, decided).await?;
    if let Some(wait) = envelope.prefer.wait {
        let Shown { decided, body, position } = &mut shown;
        wait_for_refund(&app, decided, wait).await?;
        body.update(&*order_of(decided)?);
        decided.view.position.into_iter().for_each(|at| position.cover(at));
    }
    Ok(shown.respond(&envelope, StatusCode::OK))
}

/// The reason, sealed with the key of the customer whose order it is: it may say anything about them.
/// Once the customer is erased there is no key, and no reason is kept.
async fn seal(app: &App, order: Uuid, reason: Option<Arc<str>>) -> Result<Option<Sealed>, Problem> {
    let Some(reason) = reason else { return Ok(None) };
    let AggregateState::Order(order) = command::look(app, StreamId::order(order)).await?.state
    else {
        return Ok(None);
    };
    let customer_id = order.customer_id();
    let key = customers::key(app, customer_id).await?;
    key.map(|key| customers::seal(&key, customer_id, CANCEL_REASON, &reason)).transpose()
}

/// Waits until the money is refunded, `wait` at most. Nothing else can change on a cancelled order.
async fn wait_for_refund(app: &App, decided: &mut Decided, wait: Duration) -> Result<(), Problem> {
    let began = app.environment.monotonic();
    while order_of(decided)?.refund_state() == RefundState::Pending {
        let left = wait.saturating_sub(app.environment.monotonic().saturating_sub(began));
        if left.is_zero() {
            break;
        }
        app.environment.sleep(REFUND_POLL.min(left)).await;
        decided.view = command::look(app, decided.view.stream).await?;
    }
    Ok(())
}
