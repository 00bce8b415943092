//! The OpenAPI 3.1 document, generated from the code.
//!
//! An endpoint declares what is special about it: its parameters, bodies, answers, problems and
//! role. This module adds what follows from that: the shared parameters, headers and problems, the
//! bounds of texts, and examples.

mod complete;
mod example;
mod operation;
mod shared;

#[cfg(test)]
mod tests;

pub use shared::id as example_id;

use crate::{pages::Text, problem::ProblemBody, router::described_routes};
use axum::{http::HeaderMap, response::Response};
use serde_json::Value;
use std::sync::LazyLock;
use utoipa::OpenApi;

/// The part of the document that describes the interface as a whole.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "orderlog",
        description = "An event-sourced order backend. A command answers once its decision is \
                       durable. A query answers from a read model and says how fresh the answer \
                       is. Errors are problem documents (RFC 9457) whose `type` is the path of a \
                       page that explains them. A path that does not support a method answers 405 \
                       with `Allow`. The events are described at `/asyncapi.json`."
    ),
    components(schemas(ProblemBody)),
    security(("bearer" = [])),
    tags(
        (name = "orders", description = "Place, follow, change and cancel orders"),
        (name = "products", description = "The catalogue and its stock"),
        (name = "customers", description = "Customers and their profiles"),
        (name = "wishlist", description = "The products that a customer has put on their wishlist"),
        (name = "reports", description = "Reports for staff"),
        (name = "payments", description = "For the payment gateway"),
        (name = "administration", description = "Read models and raw events; role `admin`"),
        (name = "operations", description = "Health and metrics, for operators"),
    ),
)]
struct Document;

/// `GET /openapi.json`.
pub async fn serve(headers: HeaderMap) -> Response {
    // Made once: it takes milliseconds, and anybody may ask for it.
    static TEXT: LazyLock<Text> = LazyLock::new(|| document().to_string().into());
    TEXT.clone().answer(&headers, "application/json")
}

/// The document, complete.
pub fn document() -> Value {
    let mut document = Document::openapi();
    let (_, described) = described_routes().split_for_parts();
    document.merge(described);
    let mut document = serde_json::to_value(document).unwrap_or_default();
    complete::complete(&mut document);
    document
}

/// The document as JSON, indented.
///
/// # Errors
/// Never, because the document always serialises.
pub fn json() -> serde_json::Result<String> {
    in_order(document())
}

/// A document as indented JSON with sorted members, so that the file in the repository changes only
/// where the document does.
pub(crate) fn in_order(mut document: Value) -> serde_json::Result<String> {
    document.sort_all_objects();
    serde_json::to_string_pretty(&document)
}

/// Every operation of a document, with its path and method.
pub fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths.flat_map(|(path, item)| {
        let operations = item.as_object().into_iter().flatten();
        operations.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

/// The value that a `$ref` refers to; any other value itself.
pub fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let pointer = value["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
    pointer.and_then(|pointer| document.pointer(pointer)).unwrap_or(value)
}
