//! `GET /customers/{id}`.

use super::body::{CustomerBody, SealedCustomer};
use crate::{
    App,
    auth::Caller,
    causality::Freshness,
    extract::{Params, PathId},
    problem::{Kind, Problem},
    query::{self, Found, read_one},
};
use axum::{extract::State, response::Response};
use events::StreamId;
use projections::{ReadModel, customers::Customer};
use std::sync::Arc;

/// Get a customer's profile.
#[utoipa::path(
    get,
    path = "/api/v1/customers/{id}",
    tag = "customers",
    operation_id = "get_customer",
    params(("id" = Uuid, Path, description = "The customer")),
    responses(
        (status = 200, description = "The customer.", body = CustomerBody),
        (status = 404, description = "`not-found`"),
        (status = 410, description = "`gone`"),
    ),
    security(("bearer" = ["customer"])),
)]
pub async fn get(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId,
    freshness: Freshness,
    params: Params,
) -> Result<Response, Problem> {
    caller.require_customer_or_staff(id)?;
    params.end()?;
    let partitions = query::partition(&app, StreamId::customer(id));
    let found = read_one(&app, ReadModel::Customers, &partitions, &freshness, |reads| async move {
        reads.customer(id).await
    })
    .await?;
    show(&app, &freshness, found).await
}

/// The answer with a customer from the read model.
pub(super) async fn show(
    app: &App,
    freshness: &Freshness,
    found: Found<Customer>,
) -> Result<Response, Problem> {
    if found.value.is_erased() {
        return Err(Kind::Gone.into());
    }
    let key = super::key(app, found.value.customer_id).await?.ok_or(Kind::Gone)?;
    let value: CustomerBody = SealedCustomer::from(found.value).open(&key)?;
    Ok(query::one(freshness, Found { value, position: found.position }))
}
