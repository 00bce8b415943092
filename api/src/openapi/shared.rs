//! The parameters and headers that operations share.

use serde_json::{Value, json};

/// A UUID for examples, by the name of the member or resource, so that all examples agree.
pub fn id(name: &str) -> &'static str {
    match name {
        "customer_id" | "customers" => "0192f3a4-5b6c-7d8e-9f00-0c0000000001",
        "product_id" | "products" => "0192f3a4-5b6c-7d8e-9f00-0b0000000001",
        "order_id" | "orders" => "0192f3a4-5b6c-7d8e-9f00-0a0000000001",
        "event_id" => "0192f3a4-5b6c-7d8e-9f00-0e0000000001",
        _ => "0192f3a4-5b6c-7d8e-9f00-0d0000000001",
    }
}

/// The parameters that operations refer to.
pub fn parameters() -> Value {
    let header = |name: &str, text: &str, schema: Value, example: &str| {
        json!({
            "name": name, "in": "header", "required": false, "description": text,
            "schema": schema, "example": example,
        })
    };
    let tag = json!({ "type": "string", "pattern": r#"^(\*|(W/)?"[ !#-~]*")$"# });
    let position = json!({
        "type": "string", "maxLength": 8192,
        "pattern": r"^[0-9]{1,9}:[0-9]{1,18}(,[0-9]{1,9}:[0-9]{1,18})*$",
    });
    // Bare, or quoted.
    let key = json!({
        "type": "string", "minLength": 1, "maxLength": 255,
        "pattern": r#"^([!#-~]([ -~]*[!-~])?|"([!#-\[\]-~]|\\["\\])([ !#-\[\]-~]|\\["\\])*")$"#,
    });
    let text = json!({ "type": "string" });
    json!({
        "Idempotency-Key": header(
            "Idempotency-Key",
            "1 to 255 ASCII characters. A request with the same key and the same body is the same \
             command and gets the same answer",
            key, "order-4711",
        ),
        "If-Match": header(
            "If-Match", "The `ETag` that the resource must have", tag, "\"6\"",
        ),
        "If-None-Match": header(
            "If-None-Match",
            "`ETag`s that the caller has; if one is current, the answer is a 304 without a body",
            text.clone(), "\"6\"",
        ),
        "Min-Log-Position": header(
            "Min-Log-Position",
            "The `Log-Position` of an earlier answer, which this answer must reflect", position,
            "3:1042",
        ),
        "Prefer-of-commands": header(
            "Prefer",
            "`wait=N`: wait at most N seconds for the outcome (10 if absent, 60 at most); or \
             `respond-async`: do not wait",
            text.clone(), "wait=10",
        ),
        "Prefer-of-queries": header(
            "Prefer",
            "`wait=N`: wait at most N seconds for the read model (5 if absent, 60 at most)",
            text.clone(), "wait=5",
        ),
        "traceparent": header(
            "traceparent", "W3C trace context; a malformed one is ignored", text, TRACE,
        ),
    })
}

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The headers that answers refer to.
pub fn headers() -> Value {
    let header = |text: &str, required: bool, pattern: &str, example: &str| {
        let schema = json!({ "type": "string", "pattern": pattern });
        json!({ "description": text, "required": required, "schema": schema, "example": example })
    };
    let (positions, path) = ("^([0-9]+:[0-9]+(,[0-9]+:[0-9]+)*)?$", "^/api/v1/");
    let order = format!("/api/v1/orders/{}", id("orders"));
    json!({
        "ETag": header("Version of the resource as shown", true, "^\"[0-9]+\"$", "\"6\""),
        "Location": header("Path of the resource", true, path, &order),
        "Log-Position": header(
            "Log position of the change. A query with this `Min-Log-Position` reflects it. Empty \
             if the resource has no events",
            true, positions, "3:1042",
        ),
        "Reflected-Position": header(
            "Log position that the answer reflects at least; empty if the log is empty", true,
            positions, "3:1042,7:99",
        ),
        "Idempotency-Replayed": header(
            "This answer has been given before", false, "^true$", "true",
        ),
        "Preference-Applied": header(
            "The preference that was applied", false, "^(respond-async|wait=[0-9]+)$", "wait=10",
        ),
        "Rejected-Location": header("Path of the rejected order", false, path, &order),
        "Rejected-Log-Position": header(
            "Log position of the rejection. A query with this `Min-Log-Position` reflects it",
            false, positions, "3:1042",
        ),
        "Retry-After": {
            "description": "Seconds to wait before a retry", "required": true,
            "schema": { "type": "integer", "minimum": 0 }, "example": 1,
        },
        "WWW-Authenticate": header("How to authenticate", true, "^Bearer$", "Bearer"),
        "traceparent": header(
            "The trace this request belongs to", true, "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$",
            TRACE,
        ),
    })
}
