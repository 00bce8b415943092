//! `GET /customers?email=`.

use super::body::CustomerBody;
use crate::{
    App,
    auth::{Access, Caller, Role},
    causality::Freshness,
    extract::Params,
    problem::Problem,
    query::{self, read_one},
};
use axum::{extract::State, response::Response};
use projections::ReadModel;
use std::sync::Arc;

/// Find the customer who has an e-mail address.
#[utoipa::path(
    get,
    path = "/api/v1/customers",
    tag = "customers",
    operation_id = "find_customer",
    params(("email" = String, Query, description = "The e-mail address, in any letter case")),
    responses(
        (status = 200, description = "The customer.", body = CustomerBody),
        (status = 404, description = "`not-found`"),
        (status = 410, description = "`gone`"),
    ),
    security(("bearer" = ["staff"])),
)]
pub async fn find(
    State(app): State<Arc<App>>,
    caller: Caller,
    freshness: Freshness,
    mut params: Params,
) -> Result<Response, Problem> {
    caller.require(Access::AtLeast(Role::Staff))?;
    let email = params.one("email")?;
    params.end()?;
    let email = email.ok_or_else(|| Problem::invalid_parameter("email", "must be given"))?;
    let email_id = super::email_id(&app.email_secret, &email);
    let partitions = query::all_partitions(&app);
    let found = read_one(&app, ReadModel::Customers, &partitions, &freshness, |reads| async move {
        reads.customer_by_email(email_id).await
    })
    .await?;
    super::get::show(&app, &freshness, found).await
}
