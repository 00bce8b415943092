//! The OpenAPI 3.1 document: from the code, completed with what all operations share.
//!
//! An endpoint says what is its own: parameters, bodies, the answers and problems that only it has,
//! and the role it asks for. What follows from that is added here: the shared parameters, headers
//! and problems, the bounds of texts, and an example of everything.

mod complete;
mod example;
mod operation;
mod shared;

#[cfg(test)]
mod tests;

pub use shared::id as example_id;

use crate::{problem::ProblemBody, router::described_routes};
use serde_json::Value;
use utoipa::OpenApi;

/// What is said once about the whole interface.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "orderlog",
        description = "An event-sourced order backend. Commands answer with what was decided, \
                       durably; queries answer from read models and say how fresh they are. \
                       Errors are problem documents (RFC 9457) whose `type` leads to a page \
                       about them; a path that does not take a method answers 405 with `Allow`. \
                       The events themselves are described at `/asyncapi.json`."
    ),
    components(schemas(ProblemBody)),
    security(("bearer" = [])),
    tags(
        (name = "orders", description = "Placed, moved on, cancelled, read"),
        (name = "products", description = "The catalogue and its stock"),
        (name = "customers", description = "Profiles"),
        (name = "wishlist", description = "What a customer wants to keep in sight"),
        (name = "reports", description = "Sums, for staff"),
        (name = "payments", description = "For the payment gateway"),
        (name = "administration", description = "Read models and raw events; role `admin`"),
        (name = "operations", description = "For whoever runs it"),
    ),
)]
struct Document;

/// The document.
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
/// Never: the document serialises.
pub fn json() -> serde_json::Result<String> {
    in_order(document())
}

/// As JSON, indented, members by name: what is checked in differs where the document does.
pub(crate) fn in_order(mut document: Value) -> serde_json::Result<String> {
    document.sort_all_objects();
    serde_json::to_string_pretty(&document)
}

/// Every operation of a document: its path, its method, and itself.
pub fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths.flat_map(|(path, item)| {
        let operations = item.as_object().into_iter().flatten();
        operations.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

/// What a value refers to in a document; itself when it is no reference.
pub fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let pointer = value["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
    pointer.and_then(|pointer| document.pointer(pointer)).unwrap_or(value)
}
