//! `PATCH /customers/{id}`.

use super::{
    body::CustomerBody,
    email::{EmailIds, refuse_taken},
};
use crate::{
    App,
    auth::{Access, Role},
    command::{self, CommandBody, Decided, Envelope, Received, await_final, carry_out, detached},
    extract::{Field, Media, PathId},
    problem::{Kind, Problem},
    validate::{NAME, Validator},
};
use axum::{extract::State, http::StatusCode, response::Response};
use commands::customer::{Change, Command};
use events::{Private, StreamId, seal::Key};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use utoipa::ToSchema;
use uuid::Uuid;

/// How often a change is tried while another change of the e-mail address is under way.
const ATTEMPTS: usize = 5;

/// The request to change a customer. An absent member stays as it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeCustomerRequest {
    /// E-mail address. If another customer has it, nothing of the request is changed.
    #[serde(default, skip_serializing_if = "Field::is_absent")]
    #[schema(value_type = String, required = false)]
    #[schema(format = "email", max_length = 254, example = "ann@lee.example")]
    pub email: Field<Private>,
    /// Given name.
    #[serde(default, skip_serializing_if = "Field::is_absent")]
    #[schema(value_type = String, required = false)]
    #[schema(min_length = 1, max_length = 200, example = "Ann")]
    pub first_name: Field<Private>,
    /// Family name.
    #[serde(default, skip_serializing_if = "Field::is_absent")]
    #[schema(value_type = String, required = false)]
    #[schema(min_length = 1, max_length = 200, example = "Lee-Byron")]
    pub last_name: Field<Private>,
    /// Whether the customer is a VIP. Only staff may set it.
    #[serde(default, skip_serializing_if = "Field::is_absent")]
    #[schema(value_type = bool, required = false)]
    pub vip: Field<bool>,
}

impl CommandBody for ChangeCustomerRequest {
    const ACCESS: Access = Access::AtLeast(Role::Customer);
    const MEDIA: Media = Media::Patch;
}

/// Change a customer's profile.
#[utoipa::path(
    patch,
    path = "/api/v1/customers/{id}",
    tag = "customers",
    operation_id = "change_customer",
    params(("id" = Uuid, Path, description = "The customer")),
    request_body(
        content(
            (ChangeCustomerRequest = "application/json"),
            (ChangeCustomerRequest = "application/merge-patch+json"),
        )
    ),
    responses(
        (status = 200, description = "The customer after the change.", body = CustomerBody),
        (
            status = 202, description = "The change is accepted and not decided yet.",
            body = CustomerBody
        ),
        (status = 404, description = "`not-found`"),
        (status = 409, description = "`email-taken`"),
        (status = 410, description = "`gone`"),
    ),
    security(("bearer" = ["customer"])),
)]
pub async fn change(
    State(app): State<Arc<App>>,
    PathId(id): PathId,
    Received { body, envelope }: Received<ChangeCustomerRequest>,
) -> Result<Response, Problem> {
    envelope.caller.require_customer_or_staff(id)?;
    if !body.vip.is_absent() {
        envelope.caller.require(Access::AtLeast(Role::Staff))?;
    }
    let asked = validate(&body)?;
    detached(change_customer(app, id, asked, envelope)).await
}

async fn change_customer(
    app: Arc<App>,
    id: Uuid,
    asked: Asked,
    envelope: Envelope,
) -> Result<Response, Problem> {
    let key = existing_key(&app, id).await?;
    let ids = asked.email.as_deref().map(|email| EmailIds::of(&app.email_secret, email));
    let stream = StreamId::customer(id);
    if let Some(ids) = &ids
        && !command::is_retry(&app, &envelope, stream).await?
    {
        refuse_taken(&app, &ids.earlier, id).await?;
    }
    let wanted = ids.map(|ids| ids.current);
    let command = sealed(&key, id, wanted, &asked)?;
    let decided = apply(&app, &envelope, stream, command.into()).await?;
    if decided.is_final && wanted.is_some() {
        let customer = super::customer_of(&decided)?;
        if !customer.is_erased() && customer.profile().map(|profile| profile.email_id) != wanted {
            return Err(super::email_taken(&decided));
        }
    }
    super::answer(&key, &envelope, &decided, StatusCode::OK)
}

/// Sends the change. If a change of the e-mail address is under way, waits for its end and sends
/// the change again.
async fn apply(
    app: &App,
    envelope: &Envelope,
    stream: StreamId,
    command: Command,
) -> Result<Decided, Problem> {
    let wait = envelope.prefer.command_wait().max(Duration::from_secs(1));
    let began = app.environment.monotonic();
    for _ in 1..ATTEMPTS {
        let left = wait.saturating_sub(app.environment.monotonic().saturating_sub(began));
        match carry_out(app, envelope, stream, command.clone()).await {
            Err(problem) if problem.kind() == Kind::CommandNotApplied && !left.is_zero() => {
                await_final(app, stream, left).await?;
            }
            decided => return decided,
        }
    }
    carry_out(app, envelope, stream, command).await
}

/// The customer's key. Without a key the customer never registered, or was erased.
async fn existing_key(app: &App, id: Uuid) -> Result<Key, Problem> {
    if let Some(key) = super::key(app, id).await? {
        return Ok(key);
    }
    let view = command::look(app, StreamId::customer(id)).await?;
    match &view.state {
        commands::State::Customer(customer) if customer.exists() => Err(Kind::Gone.into()),
        _ => Err(Problem::not_found("customer")),
    }
}

/// A request whose values are valid; `None` for what stays as it is.
struct Asked {
    email: Option<String>,
    first_name: Option<Arc<str>>,
    last_name: Option<Arc<str>>,
    vip: Option<bool>,
}

fn validate(body: &ChangeCustomerRequest) -> Result<Asked, Problem> {
    let mut v = Validator::default();
    let email = v.required(&body.email, "/email");
    let first_name = v.required(&body.first_name, "/first_name");
    let last_name = v.required(&body.last_name, "/last_name");
    let asked = Asked {
        email: email.map(|email| v.email(email.reveal(), "/email").to_owned()),
        first_name: first_name.map(|name| v.text(name.reveal(), "/first_name", NAME)),
        last_name: last_name.map(|name| v.text(name.reveal(), "/last_name", NAME)),
        vip: v.required(&body.vip, "/vip").copied(),
    };
    v.end()?;
    Ok(asked)
}

fn sealed(key: &Key, id: Uuid, email_id: Option<Uuid>, asked: &Asked) -> Result<Change, Problem> {
    let seal =
        |text: Option<&str>, name| text.map(|text| super::seal(key, id, name, text)).transpose();
    Ok(Change {
        email: email_id.zip(seal(asked.email.as_deref(), "email")?),
        first_name: seal(asked.first_name.as_deref(), "first_name")?,
        last_name: seal(asked.last_name.as_deref(), "last_name")?,
        vip: asked.vip,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extract::parse;

    #[test]
    fn no_member_of_a_profile_can_be_null() {
        let valid = |json: &str| validate(&parse(json.as_bytes()).unwrap()).is_ok();
        assert!(valid("{}") && valid(r#"{"first_name":"Ann","vip":true}"#));
        for member in ["email", "first_name", "last_name", "vip"] {
            assert!(!valid(&format!("{{\"{member}\":null}}")), "{member}");
        }
        assert!(!valid(r#"{"email":"ann"}"#));
    }
}
