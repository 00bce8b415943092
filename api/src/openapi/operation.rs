//! Completes one operation with what follows from its declaration.

use super::{example, resolve};
use crate::{problem::Kind, query::CURSOR_BYTES};
use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The sort of an operation, which decides about its shared parameters, headers and problems.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    /// Changes an aggregate.
    Command,
    /// Reads a read model.
    Query,
    /// Any other operation under `/api/`: administration, the webhook, a stream of events.
    Plain,
    /// Outside of `/api/`.
    Outside,
}

impl Sort {
    fn of(path: &str, method: &str) -> Self {
        match method {
            _ if !path.starts_with("/api/") => Self::Outside,
            _ if path.contains("/admin/p") => Self::Plain,
            // The webhook is signed by the gateway and has no key. A stream waits for no read model.
            _ if path.ends_with("/webhook") || path.ends_with("/events") => Self::Plain,
            _ if path.ends_with("/events/ticket") || path.ends_with("/lookup") => Self::Query,
            "get" => Self::Query,
            _ => Self::Command,
        }
    }
}

/// The properties of an operation that decide what is added to it.
struct Context<'a> {
    document: &'a Value,
    path: &'a str,
    sort: Sort,
    /// Whether it reads a body.
    has_body: bool,
    /// Whether its answer has a version.
    versioned: bool,
    /// The role that it requires, if any.
    role: Option<String>,
}

/// Completes one operation of `document`.
pub fn complete(document: &Value, path: &str, method: &str, operation: &mut Value) {
    let Some(members) = operation.as_object() else { return };
    let context = Context {
        document,
        path,
        sort: Sort::of(path, method),
        has_body: members.contains_key("requestBody"),
        versioned: is_versioned(document, operation),
        role: role(operation),
    };
    context.describe(operation);
    context.complete_parameters(operation);
    context.complete_problems(operation);
    context.complete_answers(operation);
    context.complete_body(operation);
}

/// Whether the body of its answer has a version.
fn is_versioned(document: &Value, operation: &Value) -> bool {
    let answers = operation["responses"].as_object().into_iter().flatten();
    answers.filter(|(status, _)| status.starts_with('2')).any(|(_, answer)| {
        let schema = resolve(document, &answer["content"]["application/json"]["schema"]);
        // An event's `version` is that of its stream, and not of the answer.
        schema["properties"]["version"].is_object()
            && schema["properties"]["updated_at"].is_object()
    })
}

/// The least role that an operation requires; empty if any token will do, `None` without a token.
fn role(operation: &Value) -> Option<String> {
    let ways = operation["security"].as_array()?;
    if ways.iter().any(|way| way.as_object().is_some_and(Map::is_empty)) {
        return None;
    }
    Some(ways.first()?["bearer"][0].as_str().unwrap_or_default().to_owned())
}

impl Context<'_> {
    fn describe(&self, operation: &mut Value) {
        let who = match self.role.as_deref() {
            Some("customer") => "Role `customer` (own resources only), `staff` or `admin`.",
            Some("staff") => "Role `staff` or `admin`.",
            Some("admin") => "Role `admin`.",
            Some(_) | None => "Open to anyone.",
        };
        let told = operation["description"].as_str().unwrap_or_default();
        let text = if told.is_empty() { who.to_owned() } else { format!("{told}\n\n{who}") };
        operation["description"] = text.into();
    }

    fn complete_parameters(&self, operation: &mut Value) {
        let own = operation.get("parameters").and_then(Value::as_array).into_iter().flatten();
        let mut parameters: Vec<Value> = own.map(|it| self.parameter(it.clone())).collect();
        let shared: &[&str] = match self.sort {
            Sort::Command => &["Idempotency-Key", "If-Match", "Prefer-of-commands", "traceparent"],
            Sort::Query if self.versioned => {
                &["If-None-Match", "Min-Log-Position", "Prefer-of-queries", "traceparent"]
            }
            Sort::Query => &["Min-Log-Position", "Prefer-of-queries", "traceparent"],
            Sort::Plain => &["traceparent"],
            Sort::Outside => &[],
        };
        let reference = |name: &&str| json!({ "$ref": format!("#/components/parameters/{name}") });
        parameters.extend(shared.iter().map(reference));
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
    }

    /// A parameter of its own, with its bounds and an example.
    fn parameter(&self, mut parameter: Value) -> Value {
        let name = parameter["name"].as_str().unwrap_or_default().to_owned();
        let collection = self.path.trim_start_matches("/api/v1/").split('/').next();
        match name.as_str() {
            "limit" => {
                parameter["schema"] =
                    json!({ "type": "integer", "minimum": 1, "maximum": 200, "default": 50 });
            }
            "cursor" => {
                parameter["schema"] = json!({
                    "type": "string", "minLength": 1, "maxLength": CURSOR_BYTES,
                    "pattern": "^[A-Za-z0-9_-]+$",
                });
                parameter["example"] = json!("eyJsaXN0IjoxLCJhdCI6MX0");
            }
            "bucket" => {
                parameter["schema"] =
                    json!({ "type": "string", "enum": ["day", "hour"], "default": "day" });
            }
            "confirm" => {
                parameter["schema"] = json!({ "type": "string", "enum": ["open-orders"] });
                parameter["example"] = json!("open-orders");
            }
            "as_of" => {
                parameter["schema"] = json!({
                    "type": "string",
                    "anyOf": [
                        { "format": "date-time" },
                        { "pattern": "^[0-9]+:[0-9]+(,[0-9]+:[0-9]+)*$" },
                    ],
                });
            }
            _ if parameter["schema"] == json!({ "type": "string" }) => {
                parameter["schema"]["pattern"] = r"^[^\x00]*$".into();
            }
            _ => {}
        }
        if parameter.get("example").is_none() {
            let of = if name == "id" { collection.unwrap_or_default() } else { &name };
            let found = example::parameter(self.path, of)
                .or_else(|| example::of_schema(self.document, of, &parameter["schema"]));
            if let Some(found) = found {
                parameter["example"] = found;
            }
        }
        parameter
    }

    /// The kinds of problems that every operation of this sort can answer with.
    fn shared_kinds(&self) -> Vec<Kind> {
        let mut kinds = match self.sort {
            Sort::Outside => return Vec::new(),
            Sort::Command => vec![
                Kind::InvalidParameter,
                Kind::VersionMismatch,
                Kind::IdempotencyKeyReused,
                Kind::CommandNotApplied,
                Kind::OutcomeUnknown,
                // An earlier answer is rebuilt from the history, which may be behind.
                Kind::ProjectionBehind,
                Kind::Unavailable,
            ],
            Sort::Query => {
                vec![Kind::InvalidParameter, Kind::ProjectionBehind, Kind::Unavailable]
            }
            Sort::Plain => vec![Kind::InvalidParameter, Kind::Unavailable],
        };
        kinds.extend([Kind::Unauthenticated, Kind::RateLimited, Kind::InternalError]);
        if self.role.is_some() {
            kinds.push(Kind::Forbidden);
        }
        if self.path.contains('{') {
            kinds.push(Kind::NotFound);
        }
        if self.has_body {
            kinds.extend([
                Kind::InvalidBody,
                Kind::RequestTimeout,
                Kind::BodyTooLarge,
                Kind::UnsupportedMediaType,
                Kind::ValidationFailed,
            ]);
        }
        kinds
    }

    /// Describes every error as a problem document, with the kinds it may have and an example each.
    fn complete_problems(&self, operation: &mut Value) {
        let Some(responses) = members(operation, "responses") else { return };
        let creates = responses.contains_key("201");
        let mut found: BTreeMap<StatusCode, (String, Vec<Kind>)> = BTreeMap::new();
        for (status, response) in &*responses {
            let Ok(status) = status.parse::<StatusCode>() else { continue };
            if status.is_client_error() || status.is_server_error() {
                let text = response["description"].as_str().unwrap_or_default();
                found.insert(status, (text.to_owned(), named(text)));
            }
        }
        for kind in self.shared_kinds() {
            let (text, kinds) = found.entry(kind.status()).or_default();
            if !kinds.contains(&kind) {
                kinds.push(kind);
                let name = format!("`{}`", kind.name());
                *text = if text.is_empty() { name } else { format!("{text}, {name}") };
            }
        }
        for (status, (text, kinds)) in found {
            let answer = problem(status, &text, &kinds, creates);
            responses.insert(status.as_str().to_owned(), answer);
        }
    }

    fn complete_answers(&self, operation: &mut Value) {
        let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
        let Some(responses) = members(operation, "responses") else { return };
        if self.sort == Sort::Query && self.versioned {
            let text = "`If-None-Match` names the current version, which is not sent again.";
            responses.insert("304".to_owned(), json!({ "description": text }));
        }
        for (status, response) in responses {
            if status.starts_with(['2', '3']) {
                self.complete_answer(&id, status, response);
            }
        }
    }

    fn complete_answer(&self, id: &str, status: &str, response: &mut Value) {
        let mut names = vec!["traceparent"];
        match self.sort {
            Sort::Command => {
                names.extend(["Log-Position", "Idempotency-Replayed", "Preference-Applied"]);
            }
            Sort::Query => names.extend(["Reflected-Position", "Preference-Applied"]),
            Sort::Plain | Sort::Outside => {}
        }
        if self.versioned {
            names.push("ETag");
        }
        if self.sort == Sort::Command && ["201", "202"].contains(&status) {
            names.push("Location");
        }
        response["headers"] = headers(&names);
        for (media, content) in members(response, "content").into_iter().flatten() {
            if content.get("example").is_none() && media == "application/json" {
                let name = format!("{id}.{status}");
                if let Some(found) = example::of_schema(self.document, &name, &content["schema"]) {
                    content["example"] = found;
                }
            }
        }
    }

    fn complete_body(&self, operation: &mut Value) {
        let Some(body) = operation.get_mut("requestBody") else { return };
        let mut required = true;
        for content in members(body, "content").into_iter().flat_map(Map::values_mut) {
            // An optional body may be left out, but must not be null.
            let choices = content["schema"].get("oneOf").and_then(Value::as_array);
            let is_null = |choice: &&Value| choice["type"] == "null";
            if choices.is_some_and(|choices| choices.iter().any(|it| is_null(&it))) {
                let body = choices.into_iter().flatten().find(|it| !is_null(it)).cloned();
                content["schema"] = body.unwrap_or_default();
                required = false;
            }
            if content.get("example").is_none()
                && let Some(found) = example::of_schema(self.document, "", &content["schema"])
            {
                content["example"] = found;
            }
        }
        body["required"] = required.into();
    }
}

/// The answer with this status, with an example for each of `kinds`.
fn problem(status: StatusCode, text: &str, kinds: &[Kind], creates: bool) -> Value {
    let examples: Map<String, Value> = kinds
        .iter()
        .map(|kind| kind.name())
        .map(|name| (name.into(), json!({ "$ref": format!("#/components/examples/{name}") })))
        .collect();
    let rejects = |kind: &Kind| crate::problem::example(*kind, "")["order_id"].is_string();
    let rejects = creates && kinds.iter().any(rejects);
    let mut names = vec!["traceparent"];
    match status {
        StatusCode::UNAUTHORIZED => names.push("WWW-Authenticate"),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            names.push("Retry-After");
        }
        _ if rejects => {
            names.extend(["Rejected-Location", "Rejected-Log-Position", "Idempotency-Replayed"]);
        }
        _ => {}
    }
    let schema = json!({ "$ref": "#/components/schemas/Problem" });
    json!({
        "description": text,
        "headers": headers(&names),
        "content": { "application/problem+json": { "schema": schema, "examples": examples } },
    })
}

/// A member that is an object. Unlike indexing, this does not add a missing member.
fn members<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Map<String, Value>> {
    value.get_mut(name)?.as_object_mut()
}

/// The kinds that a text names in back-ticks.
fn named(text: &str) -> Vec<Kind> {
    let words = text.split('`').skip(1).step_by(2);
    words.filter_map(|word| Kind::ALL.iter().copied().find(|kind| kind.name() == word)).collect()
}

/// References to the shared headers. `Reflected-Position` and `Rejected-...` are other descriptions
/// of the headers `Log-Position` and `...`.
fn headers(names: &[&str]) -> Value {
    let entry = |name: &&str| {
        let shown = match *name {
            "Reflected-Position" => "Log-Position",
            name => name.trim_start_matches("Rejected-"),
        };
        (shown.to_owned(), json!({ "$ref": format!("#/components/headers/{name}") }))
    };
    names.iter().map(entry).collect()
}
