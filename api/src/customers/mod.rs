//! The endpoints of customers. Personal data is sealed before it goes to the write side, and
//! decrypted only to be answered.

pub mod body;
pub mod change;
mod email;
pub mod erase;
pub mod find;
pub mod get;
pub mod lookup;
pub mod register;

use crate::{
    App,
    command::{self, Answer, Decided, Envelope},
    problem::{Kind, Problem},
};
use axum::{http::StatusCode, response::Response};
use body::SealedCustomer;
use commands::{
    State,
    customer::{Customer, Status},
};
use events::{
    Sealed, StreamId,
    keys::KeyError,
    seal::{Key, UnsealError},
};
use std::{collections::BTreeMap, sync::Arc};
use uuid::Uuid;

/// The path of a customer.
pub fn location(id: Uuid) -> String {
    format!("/api/v1/customers/{id}")
}

/// Requires a registered customer. Asks the write side, so that a caller who is no customer writes
/// nothing to the log.
pub(crate) async fn require_registered(app: &App, id: Uuid) -> Result<(), Problem> {
    command::passes(app, StreamId::customer(id), |state| registered(state).map(drop)).await
}

/// Requires a registered customer who may place another order. Asks the write side, so that a caller
/// who may not writes nothing to the log.
pub(crate) async fn require_may_order(app: &App, id: Uuid) -> Result<(), Problem> {
    let now = app.router()?.log_time();
    let limits = app.settings.limits;
    let may_order = |state: &State| Ok(registered(state)?.within(limits, now)?);
    command::passes(app, StreamId::customer(id), may_order).await
}

fn registered(state: &State) -> Result<&Customer, Problem> {
    match state {
        State::Customer(it) if it.status() == Some(Status::Registered) => Ok(it),
        _ => Err(Kind::CustomerNotFound.into()),
    }
}

/// Refuses to go on for an erased customer. Asks the write side, which knows first.
pub(crate) async fn refuse_erased(app: &App, id: Uuid) -> Result<(), Problem> {
    match &command::look(app, StreamId::customer(id)).await?.state {
        State::Customer(it) if it.is_erased() => Err(Kind::Gone.into()),
        _ => Ok(()),
    }
}

/// The customer's key. `None` if it was never made, or was destroyed.
pub(crate) async fn key(app: &App, id: Uuid) -> Result<Option<Key>, Problem> {
    Ok(keys(app, [id]).await?.remove(&id))
}

/// The keys of these customers, without those that were never made or are destroyed.
pub(crate) async fn keys(
    app: &App,
    ids: impl IntoIterator<Item = Uuid>,
) -> Result<BTreeMap<Uuid, Key>, Problem> {
    let ids: Vec<Uuid> = ids.into_iter().collect();
    if ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let keys = app.keys.get(&ids).await.map_err(|error| unavailable(&error))?;
    Ok(ids.into_iter().zip(keys).filter_map(|(id, key)| Some((id, key?))).collect())
}

/// The problem for an error of the key store.
pub(crate) fn unavailable(error: &KeyError) -> Problem {
    match error {
        KeyError::Destroyed => Kind::Gone.into(),
        KeyError::Damaged(_) | KeyError::Unavailable(_) => {
            tracing::error!(
                error = error as &dyn std::error::Error,
                "the key store did not give a key"
            );
            Problem::unavailable("the key store does not answer")
        }
    }
}

/// Seals a field of a customer.
pub(crate) fn seal(key: &Key, id: Uuid, field: &str, text: &str) -> Result<Sealed, Problem> {
    Sealed::seal(key, id, field, text).map_err(|error: UnsealError| Problem::internal(&error))
}

fn customer_of(decided: &Decided) -> Result<Arc<Customer>, Problem> {
    match &decided.view.state {
        State::Customer(customer) => Ok(Arc::clone(customer)),
        _ => Err(Problem::not_found("customer")),
    }
}

/// The answer with a decided customer.
fn answer(
    key: &Key,
    envelope: &Envelope,
    decided: &Decided,
    status: StatusCode,
) -> Result<Response, Problem> {
    let id = decided.view.stream.id;
    let customer = customer_of(decided)?;
    if customer.is_erased() {
        return Err(Kind::Gone.into());
    }
    let sealed = SealedCustomer::of_state(id, &customer);
    let body = sealed.ok_or_else(|| Problem::not_found("customer"))?.open(key)?;
    Ok(Answer::of(decided, status, location(id), body).respond(envelope, decided))
}

/// The problem for an e-mail address that another customer has, with the position and the replay
/// mark that every answer to a command has.
fn email_taken(decided: &Decided) -> Problem {
    let problem = Problem::from(Kind::EmailTaken);
    problem.with_position(&command::position(&decided.view)).replayed(decided.replayed)
}
