//! `POST /customers`.

use super::{
    body::CustomerBody,
    email::{EmailIds, refuse_taken},
};
use crate::{
    App,
    auth::{Access, Caller, Role},
    client::ClientAddress,
    command::{self, CommandBody, Received, carry_out, detached},
    config::Registration,
    problem::Problem,
    validate::{NAME, Validator},
};
use axum::{extract::State, http::StatusCode, response::Response};
use commands::customer::{Command, Register, Status};
use events::{Private, StreamId, seal::Key};
use serde::{Deserialize, Serialize};
use std::{net::IpAddr, sync::Arc};
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
///
/// A shop may leave this to staff (`REGISTRATION=staff`). Registrations from one address are limited
/// per minute, those of staff apart.
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
    ClientAddress(address): ClientAddress,
    received: Received<RegisterCustomerRequest>,
) -> Result<Response, Problem> {
    admit(&app, &received.envelope.caller, address)?;
    detached(register_customer(app, received)).await
}

/// Whether the caller may register now. Staff always may; everybody else counts by their address.
fn admit(app: &App, caller: &Caller, address: Option<IpAddr>) -> Result<(), Problem> {
    match caller.require(Access::AtLeast(Role::Staff)) {
        Ok(()) => Ok(()),
        Err(refused) if app.settings.registration == Registration::Staff => Err(refused),
        Err(_) => {
            let balance = app.registrations.take(&address, 1, app.environment.monotonic());
            balance.map_or(Ok(()), |balance| balance.allow())
        }
    }
}

async fn register_customer(
    app: Arc<App>,
    Received { body, envelope }: Received<RegisterCustomerRequest>,
) -> Result<Response, Problem> {
    let asked = validate(&body)?;
    let id = envelope.created_id(&app);
    let ids = EmailIds::of(&app.email_secret, asked.email);
    // A taken address costs no event, no key and no memory. The address's stream still decides
    // between two who ask at the same time.
    if !command::is_retry(&app, &envelope, StreamId::customer(id)).await? {
        refuse_taken(&app, &ids.all(), id).await?;
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
