//! Examples: from a file in `examples/`, or else made from the examples in the schema.

use super::{resolve, shared};
use include_dir::{Dir, include_dir};
use serde_json::{Map, Value, json};

/// The files: `<Schema>.json`, or `<operation>.<status>.json` for the answer of one operation.
static WRITTEN: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/src/openapi/examples");

const MOMENT: &str = "2026-11-20T12:00:00Z";

/// The example in the file of this name.
fn written(name: &str) -> Option<Value> {
    let file = WRITTEN.get_file(format!("{name}.json"))?;
    serde_json::from_slice(file.contents()).ok()
}

/// Gives a schema the example in its file.
pub fn complete(name: &str, schema: &mut Value) {
    if let Some(written) = written(name) {
        schema["example"] = written;
    }
}

/// The example of a parameter, for parameters whose schema does not tell what a value looks like.
pub fn parameter(path: &str, name: &str) -> Option<Value> {
    match name {
        "admin" if path.contains("/streams/") => {
            Some(json!(format!("order-{}", shared::id("orders"))))
        }
        "customers" | "products" | "orders" => Some(json!(shared::id(name))),
        "name" if path.contains("/projections/") => Some(json!("orders")),
        "name" if path.contains("/problems/") => Some(json!("insufficient-stock")),
        "as_of" => Some(json!(MOMENT)),
        "bucket" => Some(json!("day")),
        "q" => Some(json!("left hand")),
        "stream" => Some(json!(format!("order-{}", shared::id("orders")))),
        "ticket" => Some(json!("Zm9yIG9uZSBvcmRlcg.c2lnbmVk")),
        "Stripe-Signature" => Some(json!("t=1795176000,v1=5257a869e7ecebeda32affa62cdca3fa")),
        "email" => Some(json!("ann@example.org")),
        "category" => Some(json!("books")),
        _ => None,
    }
}

/// An example for `schema`, whose name is `name`. `None` if a text in it has no example.
pub fn of_schema(document: &Value, name: &str, schema: &Value) -> Option<Value> {
    if let Some(written) = written(name) {
        return Some(written);
    }
    if let Some(given) = ["example", "default", "const"].iter().find_map(|key| schema.get(key)) {
        return Some(given.clone());
    }
    if schema["$ref"].is_string() {
        return of_schema(document, name, resolve(document, schema));
    }
    if let Some(first) = schema["enum"].get(0) {
        return Some(first.clone());
    }
    let choices = ["oneOf", "anyOf", "allOf"].iter().find_map(|key| schema[key].as_array());
    if let Some(choices) = choices {
        let choice = choices.iter().find(|choice| choice["type"] != "null")?;
        return of_schema(document, name, choice);
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().find(|kind| *kind != "null")?,
        kind => kind,
    };
    match kind.as_str()? {
        "object" => object(document, schema),
        "array" => Some(json!([of_schema(document, name, &schema["items"])?])),
        "integer" | "number" => Some(json!(schema["minimum"].as_i64().unwrap_or(0).max(1))),
        "boolean" => Some(json!(true)),
        "string" => match schema["format"].as_str()? {
            "uuid" => Some(json!(shared::id(name))),
            "date-time" => Some(json!(MOMENT)),
            "date" => Some(json!(&MOMENT[..10])),
            _ => None,
        },
        _ => None,
    }
}

fn object(document: &Value, schema: &Value) -> Option<Value> {
    let properties = schema["properties"].as_object().into_iter().flatten();
    let member = |(name, schema): (&String, &Value)| {
        let value = match name.as_str() {
            "next_cursor" => Value::Null,
            name => of_schema(document, name, schema)?,
        };
        Some((name.clone(), value))
    };
    properties.map(member).collect::<Option<Map<_, _>>>().map(Value::Object)
}
