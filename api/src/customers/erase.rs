//! `DELETE /customers/{id}`.

use crate::{
    App,
    auth::{Access, Role},
    command::{self, Answer, CommandBody, Received, carry_out, detached},
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

/// A customer to be erased: the path says all.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EraseCustomerRequest {}

impl CommandBody for EraseCustomerRequest {
    const ACCESS: Access = Access::AtLeast(Role::Customer);
    const MEDIA: Media = Media::OptionalJson;
}

/// What is left of a customer.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = ErasedCustomer)]
pub struct ErasedCustomerBody {
    /// Their id: their orders still name it.
    pub customer_id: Uuid,
    /// Orders that were confirmed.
    pub order_count: u64,
    /// When they registered.
    pub created_at: DateTime<Utc>,
    /// When they were erased, or an order of theirs last changed `order_count`.
    pub updated_at: DateTime<Utc>,
    /// The version shown here: the `ETag`.
    pub version: u64,
}

/// Erases a customer.
///
/// Their name and addresses can never be read again, in the log, in read models and in backups made
/// from now on. Their e-mail address is free, their orders go on and stay readable. Again it is a
/// 200 that changes nothing.
#[utoipa::path(
    delete,
    path = "/api/v1/customers/{id}",
    tag = "customers",
    operation_id = "erase_customer",
    params(("id" = Uuid, Path, description = "The customer")),
    responses(
        (status = 200, description = "The customer is erased.", body = ErasedCustomerBody),
        (status = 202, description = "Accepted: will be erased.", body = ErasedCustomerBody),
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
            created_at: customer.created_at(),
            updated_at: customer.updated_at(),
            version: customer.shown_version(),
        };
        let (location, position) =
            (Some(super::location(id)), command::position(&decided.snapshot));
        let answer = Answer { status: StatusCode::OK, location, body, position };
        Ok(answer.respond(&envelope, &decided))
    })
    .await
}
