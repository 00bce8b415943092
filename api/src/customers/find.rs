//! `GET /customers?email=`.

use super::{body::CustomerBody, email::EmailIds};
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
///
/// The address gets into the logs of every proxy on the way: `POST /customers/lookup` keeps it out.
#[utoipa::path(
    get,
    path = "/api/v1/customers",
    tag = "customers",
    operation_id = "find_customer",
    params(("email" = String, Query, description = "The e-mail address, however it is written")),
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
    // An unescaped `+` is decoded as a space, which no address has.
    by_email(&app, &freshness, &email.trim().replace(' ', "+")).await
}

/// The answer with the customer who has this address.
pub(super) async fn by_email(
    app: &App,
    freshness: &Freshness,
    email: &str,
) -> Result<Response, Problem> {
    let ids = EmailIds::of(&app.email_secret, email).all();
    let partitions = query::all_partitions(app);
    let found = read_one(app, ReadModel::Customers, &partitions, freshness, |reads| {
        let ids = ids.clone();
        async move { reads.customer_by_email(&ids).await }
    })
    .await?;
    super::get::show(app, freshness, found).await
}
