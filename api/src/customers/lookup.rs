//! `POST /customers/lookup`.

use super::body::CustomerBody;
use crate::{
    App,
    auth::{Access, Caller, Role},
    causality::Freshness,
    extract::{self, Media, Params},
    problem::Problem,
    validate::{Validator, screen},
};
use axum::{body::Body, extract::State, http::HeaderMap, response::Response};
use events::Private;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// The request to find a customer.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LookUpCustomerRequest {
    /// The customer's e-mail address, however it is written.
    #[schema(value_type = String, format = "email", max_length = 254)]
    #[schema(example = "ann.lee@example.org")]
    pub email: Private,
}

/// Find the customer who has an e-mail address, without the address in the URL.
#[utoipa::path(
    post,
    path = "/api/v1/customers/lookup",
    tag = "customers",
    operation_id = "look_up_customer",
    request_body = LookUpCustomerRequest,
    responses(
        (status = 200, description = "The customer.", body = CustomerBody),
        (status = 404, description = "`not-found`"),
        (status = 410, description = "`gone`"),
    ),
    security(("bearer" = ["staff"])),
)]
pub async fn look_up(
    State(app): State<Arc<App>>,
    caller: Caller,
    freshness: Freshness,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    caller.require(Access::AtLeast(Role::Staff))?;
    params.end()?;
    let asked: LookUpCustomerRequest = extract::json(&headers, body, Media::Json).await?;
    screen(&asked)?;
    let mut validator = Validator::default();
    let email = validator.email(asked.email.reveal(), "/email");
    validator.end()?;
    super::find::by_email(&app, &freshness, email).await
}
