//! `PATCH /orders/{id}/status`.

use super::body::OrderBody;
use crate::{
    App,
    auth::{Access, Role},
    command::{CommandBody, Received, carry_out, detached},
    extract::{Media, PathId},
    problem::Problem,
    validate::Validator,
};
use axum::{extract::State, http::StatusCode, response::Response};
use commands::order::{Command, Status};
use events::StreamId;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// The request to change an order's status.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeStatusRequest {
    /// The new status.
    #[schema(value_type = WantedStatus, example = "shipped")]
    pub status: String,
}

/// A status that staff may give an order.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code, reason = "describes the names in the OpenAPI document")]
pub enum WantedStatus {
    /// The order is being packed.
    Processing,
    /// The order has left the warehouse.
    Shipped,
    /// The order has arrived.
    Delivered,
    /// The order is cancelled.
    Cancelled,
}

impl CommandBody for ChangeStatusRequest {
    const ACCESS: Access = Access::AtLeast(Role::Staff);
    const MEDIA: Media = Media::Patch;
}

/// Change the status of an order.
///
/// Allowed changes: `pending` to `cancelled`; `confirmed` to `processing`, `shipped` or
/// `cancelled`; `processing` to `shipped` or `cancelled`; `shipped` to `delivered`.
#[utoipa::path(
    patch,
    path = "/api/v1/orders/{id}/status",
    tag = "orders",
    operation_id = "change_order_status",
    params(("id" = Uuid, Path, description = "The order")),
    request_body(
        content(
            (ChangeStatusRequest = "application/json"),
            (ChangeStatusRequest = "application/merge-patch+json"),
        )
    ),
    responses(
        (status = 200, description = "The order with its new status.", body = OrderBody),
        (status = 404, description = "`not-found`"),
        (status = 409, description = "`illegal-transition`"),
    ),
    security(("bearer" = ["staff"])),
)]
pub async fn change_status(
    State(app): State<Arc<App>>,
    PathId(id): PathId,
    Received { body, envelope }: Received<ChangeStatusRequest>,
) -> Result<Response, Problem> {
    let command = validate(&body)?;
    detached(async move {
        let decided = carry_out(&app, &envelope, StreamId::order(id), command).await?;
        Ok(super::show(&app, &envelope, decided).await?.respond(&envelope, StatusCode::OK))
    })
    .await
}

fn validate(body: &ChangeStatusRequest) -> Result<Command, Problem> {
    let Some(wanted) = wanted_status(&body.status) else {
        let detail = "must be processing, shipped, delivered or cancelled";
        return Err(Validator::refusal("/status", detail));
    };
    Ok(Command::ChangeStatus(wanted))
}

/// The status of this name, if staff may ask for it.
fn wanted_status(name: &str) -> Option<Status> {
    [Status::Processing, Status::Shipped, Status::Delivered, Status::Cancelled]
        .into_iter()
        .find(|status| status.as_str() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staff_may_ask_for_four_states() {
        assert_eq!(wanted_status("shipped"), Some(Status::Shipped));
        for name in ["pending", "confirmed", "rejected", "Shipped", ""] {
            assert_eq!(wanted_status(name), None, "{name}");
        }
    }
}
