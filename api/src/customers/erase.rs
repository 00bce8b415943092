//! `DELETE /customers/{id}`.

use crate::{
    App,
    auth::{Access, Role},
    command::{Answer, CommandBody, Received, carry_out, detached},
    extract::{Media, PathId},
    problem::Problem,
};
use axum::{extract::State, http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use commands::customer::Command;
use events::StreamId;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// The request to erase a customer: an empty body, because the path names the customer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EraseCustomerRequest {}

impl CommandBody for EraseCustomerRequest {
    const ACCESS: Access = Access::AtLeast(Role::Customer);
    const MEDIA: Media = Media::OptionalJson;
}

/// What remains of an erased customer.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = ErasedCustomer)]
pub struct ErasedCustomerBody {
    /// Id of the customer. Their orders still have it.
    pub customer_id: Uuid,
    /// Number of confirmed orders.
    pub order_count: u64,
    /// When the customer registered.
    pub created_at: DateTime<Utc>,
    /// When the customer was erased, or when an order last changed `order_count` after that.
    pub updated_at: DateTime<Utc>,
    /// Version of the customer as shown here; the same number as in `ETag`.
    pub version: u64,
}

/// Erase a customer.
///
/// The customer's name and addresses become unreadable for ever, in the log, in the read models and
/// in backups made from now on. The e-mail address can be used again. Orders go on and stay
/// readable. Erasing an erased customer is a 200 that changes nothing.
#[utoipa::path(
    delete,
    path = "/api/v1/customers/{id}",
    tag = "customers",
    operation_id = "erase_customer",
    params(("id" = Uuid, Path, description = "The customer")),
    responses(
        (status = 200, description = "The customer is erased.", body = ErasedCustomerBody),
        (
            status = 202, description = "The erasure is accepted and not finished yet.",
            body = ErasedCustomerBody
        ),
        (status = 404, description = "`not-found`"),
    ),
    security(("bearer" = ["customer"])),
)]
pub async fn erase(
    State(app): State<Arc<App>>,
    PathId(id): PathId,
    Received { body: EraseCustomerRequest {}, envelope }: Received<EraseCustomerRequest>,
) -> Result<Response, Problem> {
    envelope.caller.require_customer_or_staff(id)?;
    detached(async move {
        let decided = carry_out(&app, &envelope, StreamId::customer(id), Command::Erase).await?;
        let customer = super::customer_of(&decided)?;
        let body = ErasedCustomerBody {
            customer_id: id,
            order_count: customer.order_count(),
            created_at: customer.shown().created_at,
            updated_at: customer.shown().updated_at,
            version: customer.shown().version,
        };
        let answer = Answer::of(&decided, StatusCode::OK, super::location(id), body);
        Ok(answer.respond(&envelope, &decided))
    })
    .await
}
