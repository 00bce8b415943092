//! The OpenAPI 3.1 document: from the code, completed with what all operations share.

use crate::{
    problem::{Kind, ProblemBody},
    router::described_routes,
};
use utoipa::{
    OpenApi,
    openapi::{
        Content, HttpMethod, RefOr, Required, Response,
        path::{Operation, Parameter, ParameterBuilder, ParameterIn},
        response::ResponseBuilder,
        schema::{ObjectBuilder, Schema, Type},
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

/// What is said once about the whole interface.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "orderlog",
        description = "An event-sourced order backend. Commands answer with what was decided, \
                       durably; queries answer from read models and say how fresh they are. \
                       Errors are problem documents (RFC 9457) whose `type` leads to a page \
                       about them."
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
pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    let (_, described) = described_routes().split_for_parts();
    document.merge(described);
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    for (path, item) in &mut document.paths.paths {
        let operations = [
            (HttpMethod::Get, &mut item.get),
            (HttpMethod::Post, &mut item.post),
            (HttpMethod::Patch, &mut item.patch),
            (HttpMethod::Delete, &mut item.delete),
        ];
        for (method, operation) in operations {
            let Some(operation) = operation.as_mut() else { continue };
            if path.starts_with("/api/") {
                complete(operation, Sort::of(path, &method));
            }
            describe_problems(operation);
        }
    }
    document
}

/// The document as JSON, indented.
///
/// # Errors
/// Never: the document serialises.
pub fn json() -> serde_json::Result<String> {
    serde_json::to_string_pretty(&document())
}

/// What operations have in common with others of their sort.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    /// Changes an aggregate.
    Command,
    /// Reads a read model.
    Query,
    /// Looks after the read models themselves.
    Administration,
    /// Tells what happened elsewhere, with a signature instead of a token.
    Notice,
}

impl Sort {
    fn of(path: &str, method: &HttpMethod) -> Self {
        match method {
            _ if path.contains("/admin/p") => Self::Administration,
            _ if path.ends_with("/events/ticket") => Self::Query,
            _ if path.ends_with("/webhook") => Self::Notice,
            HttpMethod::Get => Self::Query,
            _ => Self::Command,
        }
    }
}

/// Adds the headers and problems that every operation of its sort has.
fn complete(operation: &mut Operation, sort: Sort) {
    let headers: &[(&str, &str)] = match sort {
        Sort::Command => &[
            (
                "Idempotency-Key",
                "1 to 255 characters: the same key with the same body is the same command",
            ),
            ("If-Match", "The `ETag` that the resource must still have"),
            (
                "Prefer",
                "`wait=N` seconds for the outcome (else 10, 60 at most), or `respond-async`",
            ),
        ],
        Sort::Query => &[
            (
                "Min-Log-Position",
                "A `Log-Position`: the answer reflects at least what that one did",
            ),
            ("Prefer", "`wait=N` seconds for the read model (else 5, 60 at most)"),
        ],
        Sort::Administration | Sort::Notice => &[],
    };
    if !headers.is_empty() {
        let parameters = operation.parameters.get_or_insert_default();
        parameters.extend(headers.iter().map(|(name, text)| RefOr::T(header(name, text))));
    }
    let mut kinds = vec![Kind::Unauthenticated, Kind::RateLimited];
    match sort {
        Sort::Command => kinds.extend([
            Kind::InvalidBody,
            Kind::BodyTooLarge,
            Kind::UnsupportedMediaType,
            Kind::ValidationFailed,
            Kind::VersionMismatch,
            Kind::CommandNotApplied,
        ]),
        Sort::Query => kinds.extend([Kind::InvalidParameter, Kind::ProjectionBehind]),
        Sort::Administration => kinds.push(Kind::Unavailable),
        Sort::Notice => kinds.extend([Kind::BodyTooLarge, Kind::Unavailable]),
    }
    // Only what is open to anyone says so itself.
    if operation.security.is_none() {
        kinds.push(Kind::Forbidden);
    }
    for kind in kinds {
        let status = kind.status().as_str().to_owned();
        let problem = || RefOr::T(problem(kind));
        operation.responses.responses.entry(status).or_insert_with(problem);
    }
}

fn header(name: &str, text: &str) -> Parameter {
    let schema: Schema = ObjectBuilder::new().schema_type(Type::String).build().into();
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(text))
        .schema(Some(schema))
        .build()
}

/// The answer with this status, for all the kinds that have it.
fn problem(kind: Kind) -> Response {
    // Only one operation is asked with a signature, and says so itself.
    let usual = Kind::ALL.iter().filter(|other| **other != Kind::InvalidSignature);
    let same = usual.filter(|other| other.status() == kind.status());
    let names: Vec<_> = same.map(|kind| format!("`{}`", kind.name())).collect();
    ResponseBuilder::new().description(names.join(", ")).build()
}

/// Every error is a problem document.
fn describe_problems(operation: &mut Operation) {
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        if status.starts_with(['4', '5']) {
            let schema = utoipa::openapi::Ref::from_schema_name("Problem");
            let content = Content::new(Some(schema));
            response.content.insert("application/problem+json".to_owned(), RefOr::T(content));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_the_one_checked_in() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        let checked_in = std::fs::read_to_string(path).unwrap();
        // `orderlog openapi > api/openapi.json` writes it anew.
        assert!(
            checked_in.trim_end() == json().unwrap(),
            "api/openapi.json is not the document any more"
        );
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = serde_json::to_value(document()).unwrap();
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
        let mut names = std::collections::BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                assert!(operation["responses"].as_object().is_some_and(|it| !it.is_empty()));
                let name = operation["operationId"].as_str().unwrap();
                assert!(names.insert(name.to_owned()), "{method} {path} is not the only {name}");
            }
        }
    }
}
