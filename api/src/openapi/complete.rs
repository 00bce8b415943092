//! Completes the document that the code declares.

use super::{example, operation, shared};
use crate::problem::Kind;
use serde_json::{Map, Value, json};

/// The range of characters that no text may hold, line ends and tabs apart.
macro_rules! hidden {
    () => {
        r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    };
}

/// The pattern of a text that is not blank. It leaves out control characters and the most frequent
/// characters that are not seen; the server refuses some more.
const TEXT: &str = concat!("^[^", hidden!(), r"]*[^\s", hidden!(), "][^", hidden!(), "]*$");
/// The pattern of a text that may be empty.
const OPTIONAL_TEXT: &str = concat!("^[^", hidden!(), "]*$");

/// Completes the document.
pub fn complete(document: &mut Value) {
    let components = &mut document["components"];
    components["parameters"] = shared::parameters();
    components["headers"] = shared::headers();
    components["examples"] = Kind::ALL.iter().map(|kind| problem_example(*kind)).collect();
    components["securitySchemes"] = json!({ "bearer": {
        "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
        "description": "The claim `role` is `customer` (may access their own resources only; \
                        `sub` is the customer's id), `staff`, or `admin` (may do everything that \
                        staff may do).",
    }});
    if let Some(schemas) = components["schemas"].as_object_mut() {
        complete_schemas(schemas);
    }
    let whole = document.clone();
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    for (path, item) in paths {
        let operations = item.as_object_mut().into_iter().flatten();
        for (method, operation) in operations {
            operation::complete(&whole, path, method, operation);
        }
    }
}

fn problem_example(kind: Kind) -> (String, Value) {
    let instance = format!("/api/v1/orders/{}", shared::id("orders"));
    let value = crate::problem::example(kind, &instance);
    (kind.name().to_owned(), json!({ "summary": kind.title(), "value": value }))
}

fn complete_schemas(schemas: &mut Map<String, Value>) {
    let names: Vec<String> = schemas.keys().cloned().collect();
    for (name, schema) in schemas.iter_mut() {
        // A list refers to the schema of its items instead of repeating it.
        let item = name.strip_prefix("ListBody_").filter(|item| names.iter().any(|it| it == item));
        if let Some(item) = item {
            schema["properties"]["items"]["items"] =
                json!({ "$ref": format!("#/components/schemas/{item}") });
            schema["properties"]["items"]["maxItems"] = 200.into();
        }
        // Only the schemas of requests refuse unknown members.
        if schema["additionalProperties"] == false {
            bound_texts(schema);
        }
        if name == "Problem" {
            let types = Kind::ALL.iter().map(|kind| format!("/problems/{}", kind.name()));
            schema["properties"]["type"]["enum"] = types.collect();
        }
        example::complete(name, schema);
    }
}

/// Gives each text of a request the pattern that all texts must match.
fn bound_texts(schema: &mut Value) {
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    for property in properties.into_iter().flat_map(Map::values_mut) {
        let kind = &property["type"];
        let is_text =
            kind == "string" || kind.as_array().is_some_and(|it| it.contains(&json!("string")));
        let told = ["format", "enum", "pattern"].iter().any(|key| property.get(key).is_some());
        if is_text && !told {
            let pattern = if property.get("minLength").is_some() { TEXT } else { OPTIONAL_TEXT };
            property["pattern"] = pattern.into();
        }
    }
}
