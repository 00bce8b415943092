//! `POST /customers`.

use super::{
    body::CustomerBody,
    email::{EmailIds, refuse_taken},
};
use crate::{
    App,
    auth::Access,
    command::{self, CommandBody, Received, carry_out, detached},
    problem::Problem,
    validate::{NAME, Validator},
};
use axum::{extract::State, http::StatusCode, response::Response};
use commands::customer::{Command, Register, Status};
use events::{Private, StreamId, seal::Key};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// The request to register a customer.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisterCustomerRequest {
    /// E-mail address. Two customers can never have the same one, in any letter case.
    #[schema(value_type = String, format = "email", max_length = 254, example = "ann@example.org")]
    pub email: Private,
    /// Given name.
    #[schema(value_type = String, min_length = 1, max_length = 200, example = "Ann")]
    pub first_name: Private,
    /// Family name.
    #[schema(value_type = String, min_length = 1, max_length = 200, example = "Lee")]
    pub last_name: Private,
}

impl CommandBody for RegisterCustomerRequest {
    const ACCESS: Access = Access::Anyone;
}

/// Register a customer.
#[utoipa::path(
    post,
    path = "/api/v1/customers",
    tag = "customers",
    operation_id = "register_customer",
    request_body = RegisterCustomerRequest,
    responses(
        (status = 201, description = "The customer is registered.", body = CustomerBody),
        (
            status = 202, description = "The registration is accepted and not decided yet.",
            body = CustomerBody
        ),
        (status = 409, description = "`email-taken`"),
        (
            status = 410,
            description = "`gone`: the customer whom this idempotency key registered is erased",
        ),
    ),
    security((), ("bearer" = [])),
)]
pub async fn register(
    State(app): State<Arc<App>>,
    received: Received<RegisterCustomerRequest>,
) -> Result<Response, Problem> {
    detached(register_customer(app, received)).await
}

async fn register_customer(
    app: Arc<App>,
    Received { body, envelope }: Received<RegisterCustomerRequest>,
) -> Result<Response, Problem> {
    let asked = validate(&body)?;
    let id = envelope.created_id(&app);
    let ids = EmailIds::of(&app.email_secret, asked.email);
    if !command::is_retry(&app, &envelope, StreamId::customer(id)).await? {
        refuse_taken(&app, &ids.earlier, id).await?;
    }
    // The key is durable before the first event with data that it seals.
    let key = app.keys.create(id).await.map_err(|error| super::unavailable(&error))?;
    let command: Command = sealed(&key, id, ids.current, &asked)?.into();
    let decided = carry_out(&app, &envelope, StreamId::customer(id), command).await?;
    if super::customer_of(&decided)?.status() == Some(Status::Refused) {
        return Err(super::email_taken(&decided));
    }
    super::answer(&key, &envelope, &decided, StatusCode::CREATED)
}

/// A request whose values are valid.
struct Asked<'a> {
    email: &'a str,
    first_name: Arc<str>,
    last_name: Arc<str>,
}

fn validate(body: &RegisterCustomerRequest) -> Result<Asked<'_>, Problem> {
    let mut validator = Validator::default();
    let asked = Asked {
        email: validator.email(body.email.reveal(), "/email"),
        first_name: validator.text(body.first_name.reveal(), "/first_name", NAME),
        last_name: validator.text(body.last_name.reveal(), "/last_name", NAME),
    };
    validator.end()?;
    Ok(asked)
}

fn sealed(key: &Key, id: Uuid, email_id: Uuid, asked: &Asked<'_>) -> Result<Register, Problem> {
    Ok(Register {
        email_id,
        email: super::seal(key, id, "email", asked.email)?,
        first_name: super::seal(key, id, "first_name", &asked.first_name)?,
        last_name: super::seal(key, id, "last_name", &asked.last_name)?,
    })
}
