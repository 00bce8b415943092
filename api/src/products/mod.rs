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
    command::{self, Answer, Envelope, detached},
    problem::{Kind, Problem},
};
use axum::{http::StatusCode, response::Response};
use body::ProductBody;
use commands::{State, product::Command};
use events::StreamId;
use std::sync::Arc;
use uuid::Uuid;

/// The path of a product.
pub fn location(id: Uuid) -> String {
    format!("/api/v1/products/{id}")
}

/// Requires that a product is sold. Asks the write side, because a read model may be behind.
pub(crate) async fn require_sold(app: &App, id: Uuid) -> Result<(), Problem> {
    let is_sold = |state: &State| match state {
        State::Product(it) if it.is_sold() => Ok(()),
        _ => Err(Problem::from(Kind::ProductNotFound).with("product_id", id.to_string())),
    };
    command::passes(app, StreamId::product(id), is_sold).await
}

/// Carries out a command for a product, and answers with the product.
async fn carry_out(
    app: Arc<App>,
    envelope: Envelope,
    id: Uuid,
    command: Command,
    status: StatusCode,
) -> Result<Response, Problem> {
    detached(async move {
        let stream = StreamId::product(id);
        let decided = command::carry_out(&app, &envelope, stream, command).await?;
        let body = match &decided.view.state {
            State::Product(product) => ProductBody::of_state(id, product),
            _ => None,
        };
        let body = body.ok_or_else(|| Problem::not_found("product"))?;
        Ok(Answer::of(&decided, status, location(id), body).respond(&envelope, &decided))
    })
    .await
}
