//! An example of each kind of problem, for its page and for the OpenAPI document. The match is
//! exhaustive: a new kind does not compile without its example.

use super::{Kind, Problem};
use crate::openapi::example_id as id;
use serde_json::{Value, json};

/// An example document of this kind, as an answer to a request for `instance`.
pub fn example(kind: Kind, instance: &str) -> Value {
    let (detail, members) = occurrence(kind);
    let detail = if detail.is_empty() { kind.title() } else { detail };
    let mut problem = Problem::new(kind, detail);
    for (name, value) in members.as_object().into_iter().flatten() {
        problem = problem.with(name, value.clone());
    }
    problem.document(instance)
}

/// The detail and the extension members of the example. An empty detail stands for the title.
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
            let members = json!({ "order_id": id("orders"), "decline_code": "card_declined" });
            ("the payment gateway declined the payment", members)
        }
        Kind::Forbidden => ("this operation needs the role staff", json!({})),
        Kind::NotFound => ("there is no such resource", json!({})),
        Kind::ProductNotFound => {
            let detail = "a product of the order does not exist or is discontinued";
            (detail, json!({ "product_id": id("products") }))
        }
        Kind::OpenOrders => ("", json!({ "order_ids": [id("orders")] })),
        Kind::InsufficientStock => {
            let counts = json!({
                "order_id": id("orders"), "product_id": id("products"),
                "available": 1, "requested": 2,
            });
            ("the order needs 2 of the product, and only 1 can be reserved", counts)
        }
        Kind::StockBelowReserved => {
            let detail = "only 1 would be on hand, but 2 are reserved";
            (detail, json!({ "on_hand": 1, "reserved": 2 }))
        }
        Kind::IllegalTransition => {
            let detail = "an order that is shipped cannot become cancelled";
            (detail, json!({ "from": "shipped", "to": "cancelled" }))
        }
        Kind::Expired => {
            ("the order was still pending at its deadline", json!({ "order_id": id("orders") }))
        }
        Kind::TooManyOpenOrders => {
            ("20 orders of the customer are pending, and no more are allowed", json!({}))
        }
        Kind::TooManyDeclinedPayments => {
            ("10 payments of the customer were declined within an hour", json!({}))
        }
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
        Kind::InternalError => (super::FAULT, json!({})),
        Kind::CommandNotApplied => ("the partition is not open", json!({})),
        Kind::OutcomeUnknown => ("", json!({ "id": id("orders") })),
        Kind::Unavailable => ("the read models do not answer", json!({})),
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
