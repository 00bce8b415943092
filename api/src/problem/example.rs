//! An example of each kind of problem, for its page and for the OpenAPI document. Exhaustive: a new
//! kind needs one before this compiles.

use super::{Kind, Problem};
use crate::openapi::example_id as id;
use serde_json::{Value, json};

/// The document that a problem of this kind may look like, when it happens at `instance`.
pub fn example(kind: Kind, instance: &str) -> Value {
    let (detail, members) = occurrence(kind);
    let detail = if detail.is_empty() { kind.title() } else { detail };
    let mut problem = Problem::new(kind, detail);
    for (name, value) in members.as_object().into_iter().flatten() {
        problem = problem.with(name, value.clone());
    }
    problem.document(instance)
}

/// What was said of one occurrence, and what its caller needs to act. Without a text of its own,
/// it is the title.
fn occurrence(kind: Kind) -> (&'static str, Value) {
    match kind {
        Kind::InvalidBody => {
            let detail = "missing field `quantity`";
            (detail, json!({ "errors": [{ "pointer": "/items/0/quantity", "detail": detail }] }))
        }
        Kind::InvalidParameter => {
            ("limit: must be a number from 1 to 200", json!({ "parameter": "limit" }))
        }
        Kind::PaymentDeclined => {
            ("", json!({ "order_id": id("orders"), "decline_code": "card_declined" }))
        }
        Kind::Forbidden => ("this needs the role staff", json!({})),
        Kind::NotFound => ("there is no such resource", json!({})),
        Kind::ProductNotFound => ("", json!({ "product_id": id("products") })),
        Kind::InsufficientStock => {
            let counts = json!({
                "order_id": id("orders"), "product_id": id("products"),
                "available": 1, "requested": 2,
            });
            ("", counts)
        }
        Kind::StockBelowReserved => {
            let detail = "only 1 would be on hand, but 2 are reserved";
            (detail, json!({ "on_hand": 1, "reserved": 2 }))
        }
        Kind::IllegalTransition => {
            let detail = "an order that is shipped cannot become cancelled";
            (detail, json!({ "from": "shipped", "to": "cancelled" }))
        }
        Kind::Expired => ("", json!({ "order_id": id("orders") })),
        Kind::ProjectionConflict => ("a rebuild of orders is under way", json!({})),
        Kind::VersionMismatch => ("the current version is 6", json!({ "current_version": 6 })),
        Kind::ValidationFailed => {
            let detail = "must be from 1 to 1000000";
            let errors = json!([{ "pointer": "/items/0/quantity", "detail": detail }]);
            ("/items/0/quantity must be from 1 to 1000000", json!({ "errors": errors }))
        }
        Kind::InvalidSignature => ("the signature is older than 300 s", json!({})),
        Kind::ProjectionParked => {
            ("", json!({ "projection": "orders", "stream": format!("order-{}", id("orders")) }))
        }
        Kind::WishlistFull => {
            ("the wishlist already has 500 items, the most it may have", json!({ "most": 500 }))
        }
        Kind::InternalError => ("the request failed, and the fault is logged", json!({})),
        Kind::CommandNotApplied => ("the partition is not open", json!({})),
        Kind::OutcomeUnknown => ("", json!({ "id": id("orders") })),
        Kind::Unavailable => ("the read models cannot be asked", json!({})),
        Kind::Unauthenticated
        | Kind::CustomerNotFound
        | Kind::MethodNotAllowed
        | Kind::RequestTimeout
        | Kind::EmailTaken
        | Kind::Gone
        | Kind::BodyTooLarge
        | Kind::UnsupportedMediaType
        | Kind::IdempotencyKeyReused
        | Kind::RateLimited
        | Kind::ProjectionBehind => ("", json!({})),
    }
}
