//! `DELETE /customers/{id}`.

use crate::{
    App,
    auth::{Access, Role},
    causality,
    command::{self, Answer, CommandBody, Envelope, Received, carry_out, detached},
    extract::{Media, Params, PathId},
    problem::{Kind, Problem},
    query,
};
use axum::{extract::State, http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use commands::{
    State as Aggregate,
    customer::{Command, Status::Registered},
};
use events::StreamId;
use futures::future::try_join_all;
use projections::{
    ReadModel,
    orders::{Filter, Status},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// What `confirm` must be to erase a customer whose orders are still to be shipped.
const CONFIRM: &str = "open-orders";
/// The statuses of orders that are still to be shipped.
const TO_BE_SHIPPED: [Status; 3] = [Status::Pending, Status::Confirmed, Status::Processing];
/// How many orders a refusal names.
const NAMED: u32 = 100;

/// The request to erase a customer: an empty body, because the path names the customer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EraseCustomerRequest {
    /// Whether the caller knows that the customer's orders lose their address. It is no part of the
    /// request's fingerprint: confirming repeats the request.
    #[serde(skip)]
    confirmed: bool,
}

impl CommandBody for EraseCustomerRequest {
    const ACCESS: Access = Access::AtLeast(Role::Customer);
    const MEDIA: Media = Media::OptionalJson;

    fn take(&mut self, params: &mut Params) -> Result<(), Problem> {
        match params.one("confirm")?.as_deref() {
            None => {}
            Some(CONFIRM) => self.confirmed = true,
            Some(_) => {
                return Err(Problem::invalid_parameter("confirm", "must be open-orders"));
            }
        }
        Ok(())
    }
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
/// readable, without their shipping address: while there are orders to be shipped, the request must
/// say `confirm=open-orders`. Erasing an erased customer is a 200 that changes nothing.
#[utoipa::path(
    delete,
    path = "/api/v1/customers/{id}",
    tag = "customers",
    operation_id = "erase_customer",
    params(
        ("id" = Uuid, Path, description = "The customer"),
        (
            "confirm" = Option<String>, Query,
            description = "`open-orders` erases the customer although orders are still to be shipped"
        ),
    ),
    responses(
        (status = 200, description = "The customer is erased.", body = ErasedCustomerBody),
        (
            status = 202, description = "The erasure is accepted and not finished yet.",
            body = ErasedCustomerBody
        ),
        (status = 400, description = "`invalid-parameter`"),
        (status = 404, description = "`not-found`"),
        (status = 409, description = "`open-orders`"),
    ),
    security(("bearer" = ["customer"])),
)]
pub async fn erase(
    State(app): State<Arc<App>>,
    PathId(id): PathId,
    Received { body: EraseCustomerRequest { confirmed }, envelope }: Received<EraseCustomerRequest>,
) -> Result<Response, Problem> {
    envelope.caller.require_customer_or_staff(id)?;
    detached(async move {
        if !confirmed {
            refuse_open_orders(&app, &envelope, id).await?;
        }
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

/// Refuses to erase a customer whose orders are still to be shipped: whoever ships them needs the
/// address. This warns a person and decides nothing, so the read model may answer; it is first
/// brought up to what has happened by now.
async fn refuse_open_orders(app: &App, envelope: &Envelope, id: Uuid) -> Result<(), Problem> {
    match &command::look(app, StreamId::customer(id)).await?.state {
        Aggregate::Customer(customer) if customer.status() == Some(Registered) => {}
        _ => return Ok(()),
    }
    let (reads, within) = (app.reads()?, envelope.prefer.query_wait());
    let ends = query::all_partitions(app).into_iter();
    let ends = ends.map(|partition| reads.wait_for_end(ReadModel::Orders, partition, within));
    try_join_all(ends).await.map_err(|error| causality::behind(&error))?;
    let statuses = TO_BE_SHIPPED.to_vec();
    let filter = Filter { statuses, customer_id: Some(id), ..Filter::default() };
    let open = reads.orders(&filter, None, NAMED).await.map_err(|error| query::failed(&error))?;
    if open.items.is_empty() {
        return Ok(());
    }
    let ids: Vec<String> = open.items.iter().map(|order| order.order_id.to_string()).collect();
    Err(Problem::from(Kind::OpenOrders).with("order_ids", ids))
}
