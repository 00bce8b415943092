//! `POST /orders/{id}/cancel`.

use super::{Shown, body::OrderBody, order_of};
use crate::{
    App,
    auth::{Access, Role},
    command::{self, Answer, CommandBody, Decided, Received, carry_out, detached},
    extract::{Media, PathId},
    problem::Problem,
    validate::{SHORT_TEXT, Validator},
};
use axum::{extract::State, http::StatusCode, response::Response};
use commands::order::{Cancel, Command, RefundState};
use events::StreamId;
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use utoipa::ToSchema;
use uuid::Uuid;

/// How often is looked whether the money has gone back, while somebody waits for it.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// An order to be cancelled.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelOrderRequest {
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 200, example = "ordered twice")]
    pub reason: Option<String>,
}

impl CommandBody for CancelOrderRequest {
    const ACCESS: Access = Access::AtLeast(Role::Customer);
    const MEDIA: Media = Media::OptionalJson;
}

/// Cancels an order.
///
/// The stock is free again and money taken goes back; `Prefer: wait=N` waits for the latter.
#[utoipa::path(
    post,
    path = "/api/v1/orders/{id}/cancel",
    tag = "orders",
    operation_id = "cancel_order",
    params(("id" = Uuid, Path, description = "The order")),
    request_body = Option<CancelOrderRequest>,
    responses(
        (status = 200, description = "The order is cancelled.", body = OrderBody),
        (status = 404, description = "`not-found`: no such order, or another customer's"),
        (status = 409, description = "`illegal-transition`: it was shipped already"),
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
    let reason = validator.optional(body.reason.as_ref(), "/reason", SHORT_TEXT);
    validator.end()?;
    let command = Command::from(Cancel { by, reason });
    let decided = carry_out(&app, &envelope, StreamId::order(id), command).await?;
    let Shown { mut decided, mut body, mut position } =
        super::show(&app, &envelope, decided).await?;
    if let Some(wait) = envelope.prefer.wait {
        wait_for_refund(&app, &mut decided, wait).await?;
        body.update(&*order_of(&decided)?);
        decided.snapshot.position.into_iter().for_each(|at| position.cover(at));
    }
    let answer = Answer { status: StatusCode::OK, location: None, body, position };
    Ok(answer.respond(&envelope, &decided))
}

/// Waits until the money has gone back, at most `wait`: only the refund can still change on a
/// cancelled order.
async fn wait_for_refund(app: &App, decided: &mut Decided, wait: Duration) -> Result<(), Problem> {
    let began = app.environment.monotonic();
    while order_of(decided)?.refund_state() == RefundState::Pending {
        let left = wait.saturating_sub(app.environment.monotonic().saturating_sub(began));
        if left.is_zero() {
            break;
        }
        app.environment.sleep(LOOK_AGAIN.min(left)).await;
        decided.snapshot = command::look(app, decided.snapshot.stream).await?;
    }
    Ok(())
}
