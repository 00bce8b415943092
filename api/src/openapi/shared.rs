//! Parameters and headers that many operations have, each described once.

use serde_json::{Value, json};

/// A UUID for examples, by the name of what has it: the same thing has the same id everywhere.
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
            "1 to 255 ASCII characters: the same key with the same body is the same command, and \
             gets the same answer",
            key, "order-4711",
        ),
        "If-Match": header(
            "If-Match", "The `ETag` that the resource must still have", tag, "\"6\"",
        ),
        "If-None-Match": header(
            "If-None-Match", "The `ETag`s that the caller holds: one of them is not sent again",
            text.clone(), "\"6\"",
        ),
        "Min-Log-Position": header(
            "Min-Log-Position",
            "A `Log-Position`: the answer reflects at least what that one did", position, "3:1042",
        ),
        "Prefer-of-commands": header(
            "Prefer", "`wait=N` seconds for the outcome (else 10, 60 at most), or `respond-async`",
            text.clone(), "wait=10",
        ),
        "Prefer-of-queries": header(
            "Prefer", "`wait=N` seconds for the read model (else 5, 60 at most)", text.clone(),
            "wait=5",
        ),
        "traceparent": header(
            "traceparent", "W3C trace context; one that does not read is ignored", text, TRACE,
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
        "ETag": header("The version shown", true, "^\"[0-9]+\"$", "\"6\""),
        "Location": header("Where the resource is", true, path, &order),
        "Log-Position": header(
            "What a later query must reflect to show this: its `Min-Log-Position`; empty where \
             nothing ever happened",
            true, positions, "3:1042",
        ),
        "Reflected-Position": header(
            "What the answer reflects at least; empty while the log is", true, positions,
            "3:1042,7:99",
        ),
        "Idempotency-Replayed": header(
            "This answer was given before", false, "^true$", "true",
        ),
        "Preference-Applied": header(
            "The preference that was heeded", false, "^(respond-async|wait=[0-9]+)$", "wait=10",
        ),
        "Rejected-Location": header("Where the rejected order is", false, path, &order),
        "Rejected-Log-Position": header(
            "What a later query must reflect to show the rejected order", false, positions,
            "3:1042",
        ),
        "Retry-After": {
            "description": "Seconds to wait before the next try", "required": true,
            "schema": { "type": "integer", "minimum": 0 }, "example": 1,
        },
        "WWW-Authenticate": header("How to authenticate", true, "^Bearer$", "Bearer"),
        "traceparent": header(
            "The trace this request belongs to", true, "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$",
            TRACE,
        ),
    })
}
