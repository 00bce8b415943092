//! The interface as a Postman collection (format v2.1), generated from the OpenAPI document.

use crate::openapi::{in_order, operations, resolve};
use serde_json::{Map, Value, json};

/// The collection. `base_url` and `token` are its variables.
pub fn collection() -> Value {
    let document = crate::openapi::document();
    let tags = document["tags"].as_array().into_iter().flatten();
    let folders: Vec<Value> = tags.map(|tag| folder(&document, tag)).collect();
    json!({
        "info": {
            "name": document["info"]["title"],
            "description": document["info"]["description"],
            "schema": "https://schema.getpostman.com/json/collection/v2.1.0/collection.json",
        },
        "auth": {
            "type": "bearer",
            "bearer": [{ "key": "token", "value": "{{token}}", "type": "string" }],
        },
        "variable": [
            { "key": "base_url", "value": "http://127.0.0.1:8080", "type": "string" },
            { "key": "token", "value": "", "type": "string" },
        ],
        "item": folders,
    })
}

/// The collection as JSON, indented.
///
/// # Errors
/// Never, because the collection always serialises.
pub fn json() -> serde_json::Result<String> {
    in_order(collection())
}

fn folder(document: &Value, tag: &Value) -> Value {
    let of_tag = operations(document).filter(|(_, _, it)| it["tags"][0] == tag["name"]);
    let items: Vec<Value> =
        of_tag.map(|(path, method, it)| item(document, path, method, it)).collect();
    json!({ "name": tag["name"], "description": tag["description"], "item": items })
}

fn item(document: &Value, path: &str, method: &str, operation: &Value) -> Value {
    let request = request(document, path, method, operation);
    let answers = operation["responses"].as_object().into_iter().flatten();
    let responses: Vec<Value> =
        answers.map(|(status, answer)| response(document, status, answer)).collect();
    json!({ "name": operation["summary"], "request": request, "response": responses })
}

fn request(document: &Value, path: &str, method: &str, operation: &Value) -> Value {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let parameters: Vec<&Value> = parameters.map(|it| resolve(document, it)).collect();
    let of = |place: &str| {
        parameters.iter().filter(|it| it["in"] == place).map(|it| field(it)).collect()
    };
    let (query, mut headers): (Vec<Value>, Vec<Value>) = (of("query"), of("header"));
    let variables: Vec<Value> = parameters
        .iter()
        .filter(|it| it["in"] == "path")
        .map(|it| (&it["name"], &it["example"], &it["description"]))
        .map(|(key, value, text)| json!({ "key": key, "value": value, "description": text }))
        .collect();
    let segments: Vec<String> = path.split('/').skip(1).map(segment).collect();
    let mut request = json!({
        "method": method.to_uppercase(),
        "description": operation["description"],
        "url": {
            "raw": format!("{{{{base_url}}}}/{}", segments.join("/")),
            "host": ["{{base_url}}"],
            "path": segments,
            "query": query,
            "variable": variables,
        },
    });
    let bodies = operation["requestBody"]["content"].as_object();
    if let Some((media, content)) = bodies.and_then(|bodies| bodies.iter().next()) {
        headers.insert(0, json!({ "key": "Content-Type", "value": media }));
        let raw = serde_json::to_string_pretty(&content["example"]).unwrap_or_default();
        let options = json!({ "raw": { "language": "json" } });
        request["body"] = json!({ "mode": "raw", "raw": raw, "options": options });
    }
    request["header"] = headers.into();
    let ways = operation["security"].as_array().into_iter().flatten();
    if ways.clone().all(|way| way.as_object().is_some_and(Map::is_empty)) {
        request["auth"] = json!({ "type": "noauth" });
    }
    request
}

/// Postman writes `{id}` as `:id`.
fn segment(segment: &str) -> String {
    let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    name.map_or_else(|| segment.to_owned(), |name| format!(":{name}"))
}

/// A header or query parameter. An optional one is disabled until the user ticks it.
fn field(parameter: &Value) -> Value {
    let example = parameter.get("example").unwrap_or(&parameter["schema"]["default"]);
    let example = match example {
        Value::Array(values) => values.first().unwrap_or(&Value::Null),
        value => value,
    };
    let value = example.as_str().map_or_else(|| example.to_string(), str::to_owned);
    json!({
        "key": parameter["name"],
        "value": value,
        "description": parameter["description"],
        "disabled": parameter["required"] != true,
    })
}

fn response(document: &Value, status: &str, answer: &Value) -> Value {
    let content = answer["content"].as_object().and_then(|content| content.iter().next());
    let (media, content) = content.unzip();
    let example = content.and_then(|content| {
        let first = content["examples"].as_object().and_then(|examples| examples.values().next());
        let first = first.map(|example| resolve(document, example)["value"].clone());
        first.or_else(|| content.get("example").cloned())
    });
    let body = match &example {
        Some(Value::String(text)) => Some(text.clone()),
        Some(value) => serde_json::to_string_pretty(value).ok(),
        None => None,
    };
    let code = status.parse::<u16>().unwrap_or_default();
    let reason = axum::http::StatusCode::from_u16(code).ok().and_then(|it| it.canonical_reason());
    let header = media.map(|media| json!([{ "key": "Content-Type", "value": media }]));
    json!({
        "name": format!("{status}: {}", answer["description"].as_str().unwrap_or_default()),
        "status": reason.unwrap_or_default(),
        "code": code,
        "header": header.unwrap_or_default(),
        "body": body.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_collection_is_the_one_checked_in() {
        crate::checked_in::assert_is("postman.json", "postman", &json().unwrap());
    }

    #[test]
    fn every_operation_is_a_request() {
        let (document, collection) = (crate::openapi::document(), collection());
        let folders = collection["item"].as_array().unwrap().iter();
        let requests = folders.flat_map(|folder| folder["item"].as_array().unwrap());
        let mut found: Vec<String> = requests
            .map(|item| {
                let (method, raw) = (&item["request"]["method"], &item["request"]["url"]["raw"]);
                format!("{} {}", method.as_str().unwrap(), raw.as_str().unwrap())
            })
            .collect();
        let mut expected: Vec<String> = operations(&document)
            .map(|(path, method, _)| {
                let path: Vec<String> = path.split('/').map(segment).collect();
                format!("{} {{{{base_url}}}}{}", method.to_uppercase(), path.join("/"))
            })
            .collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
    }
}
