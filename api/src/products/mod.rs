//! The endpoints of products.

pub mod add;
pub mod body;
pub mod change;
pub mod change_stock;
pub mod discontinue;
pub mod get;
pub mod list;
pub mod search;

use crate::{
    App,
    command::{self, Answer, Decided, Envelope},
    problem::{Kind, Problem},
};
use axum::{http::StatusCode, response::Response};
use body::ProductBody;
use commands::State;
use events::StreamId;
use uuid::Uuid;

/// The path of a product.
pub fn location(id: Uuid) -> String {
    format!("/api/v1/products/{id}")
}

/// Requires that a product is sold. Asks the write side, because a read model may be behind.
pub(crate) async fn require_sold(app: &App, id: Uuid) -> Result<(), Problem> {
    match &command::look(app, StreamId::product(id)).await?.state {
        State::Product(product) if product.is_sold() => Ok(()),
        _ => Err(Problem::from(Kind::ProductNotFound).with("product_id", id.to_string())),
    }
}

/// The answer with a decided product.
pub(crate) fn answer(
    envelope: &Envelope,
    decided: &Decided,
    status: StatusCode,
) -> Result<Response, Problem> {
    let id = decided.snapshot.stream.id;
    let body = match &decided.snapshot.state {
        State::Product(product) => ProductBody::of_state(id, product),
        _ => None,
    };
    let body = body.ok_or_else(|| Problem::not_found("product"))?;
    let position = command::position(&decided.snapshot);
    let answer = Answer { status, location: Some(location(id)), body, position };
    Ok(answer.respond(envelope, decided))
}
