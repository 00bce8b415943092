//! Errors as RFC 9457 problem documents.
//!
//! A handler returns a [`Problem`], and the layer [`render`] writes it as JSON, with the path of the
//! request as `instance`. The layer also covers the errors that axum itself answers: unknown routes
//! and methods.

mod example;
mod kind;
mod pages;
mod refusals;

pub use example::example;
pub use kind::Kind;
pub use pages::{index, page};

use crate::{auth::Caller, causality::LOG_POSITION, idempotency::IDEMPOTENCY_REPLAYED};
use axum::{
    Json,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use events::LogPosition;
use serde::Serialize;
use serde_json::{Map, Value};

/// The most characters of a text in a problem. Texts may repeat what the request says, and a
/// request may say a lot.
const MAX_TEXT: usize = 200;

/// The detail of every internal error. The cause stays in the log.
const FAULT: &str = "the request failed; the server logged the cause";

/// An error as the caller sees it.
#[derive(Clone, Debug)]
pub struct Problem(Box<Content>);

#[derive(Clone, Debug)]
struct Content {
    kind: Kind,
    detail: String,
    extensions: Map<String, Value>,
    headers: HeaderMap,
}

/// One fault in the body of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// Where in the body, as a JSON Pointer (RFC 6901).
    #[schema(example = "/items/0/quantity")]
    pub pointer: String,
    /// What is wrong with the value.
    #[schema(example = "must be from 1 to 1000000")]
    pub detail: String,
}

/// A problem document (RFC 9457). Each kind of problem adds its own members; the page at its `type`
/// describes them.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Problem)]
#[allow(dead_code, reason = "describes the members in the OpenAPI document")]
pub struct ProblemBody {
    /// `/problems/<name>`, the page that describes this kind of problem.
    #[serde(rename = "type")]
    #[schema(example = "/problems/validation-failed")]
    kind: String,
    /// A short summary, the same for every occurrence.
    title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What happened this time.
    detail: String,
    /// The path of the request.
    instance: String,
    /// The faults in the body.
    #[schema(value_type = Vec<FieldError>, required = false)]
    errors: (),
    /// The invalid query parameter or header.
    #[schema(value_type = String, required = false)]
    parameter: (),
    /// The order that was rejected.
    #[schema(value_type = uuid::Uuid, required = false)]
    order_id: (),
    /// The orders that are still to be shipped.
    #[schema(value_type = Vec<uuid::Uuid>, required = false)]
    order_ids: (),
    /// The product that is out of stock or missing.
    #[schema(value_type = uuid::Uuid, required = false)]
    product_id: (),
    /// Units that were available.
    #[schema(value_type = i64, required = false)]
    available: (),
    /// Units that the order needs.
    #[schema(value_type = i64, required = false)]
    requested: (),
    /// Units in stock, the reserved ones included.
    #[schema(value_type = i64, required = false)]
    on_hand: (),
    /// Units of these that are reserved for orders.
    #[schema(value_type = i64, required = false)]
    reserved: (),
    /// The status of the order.
    #[schema(value_type = String, required = false)]
    from: (),
    /// The status that was requested.
    #[schema(value_type = String, required = false)]
    to: (),
    /// The reason that the payment gateway gave.
    #[schema(value_type = String, required = false)]
    decline_code: (),
    /// The current version of the resource.
    #[schema(value_type = u64, required = false)]
    current_version: (),
    /// The maximum number of items in a wishlist.
    #[schema(value_type = u64, required = false)]
    most: (),
    /// The read model that cannot show the resource.
    #[schema(value_type = String, required = false)]
    projection: (),
    /// The stream whose events it cannot apply.
    #[schema(value_type = String, required = false)]
    stream: (),
    /// The partitions of a node that is not ready, with their states.
    #[schema(value_type = Vec<Object>, required = false)]
    partitions: (),
    /// The id of the resource, when it is unknown whether the command was applied.
    #[schema(value_type = uuid::Uuid, required = false)]
    id: (),
}

impl Problem {
    /// A problem of this kind. `detail` tells a person what happened this time.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let (detail, extensions, headers) = (cut(detail.into()), Map::new(), HeaderMap::new());
        Self(Box::new(Content { kind, detail, extensions, headers }))
    }

    /// A part of the system does not answer at the moment.
    pub fn unavailable(detail: &'static str) -> Self {
        Self::new(Kind::Unavailable, detail).retry_after(1)
    }

    /// The path does not exist, or not for this caller.
    pub fn not_found(what: &str) -> Self {
        Self::new(Kind::NotFound, format!("there is no such {what}"))
    }

    /// A query parameter, header, cursor or token with an invalid value.
    pub fn invalid_parameter(name: &str, detail: &str) -> Self {
        Self::new(Kind::InvalidParameter, format!("{name}: {detail}")).with("parameter", name)
    }

    /// The program failed. Logs the error, and tells the caller nothing about it.
    pub fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error, "a request failed");
        Self::new(Kind::InternalError, FAULT)
    }

    /// Adds a member.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.extensions.insert(name.to_owned(), cut_texts(value.into()));
        self
    }

    /// Adds the faults in the body.
    #[must_use]
    pub fn with_errors(self, errors: &[FieldError]) -> Self {
        let errors = errors
            .iter()
            .map(|error| serde_json::json!({ "pointer": error.pointer, "detail": error.detail }));
        self.with("errors", Value::Array(errors.collect()))
    }

    /// Adds a header, unless its value is not allowed in a header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.0.headers.insert(name, value);
        }
        self
    }

    /// Adds a `Retry-After` of `seconds`.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        self.with_header(header::RETRY_AFTER, &seconds.to_string())
    }

    /// Adds the `Log-Position` of the events that the command wrote.
    #[must_use]
    pub fn with_position(self, position: &LogPosition) -> Self {
        self.with_header(LOG_POSITION, &position.to_string())
    }

    /// Marks the answer as a repetition of an earlier one, if `replayed`.
    #[must_use]
    pub fn replayed(self, replayed: bool) -> Self {
        if replayed { self.with_header(IDEMPOTENCY_REPLAYED, "true") } else { self }
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// An extension member by name; null when there is none.
    pub fn extension(&self, name: &str) -> Value {
        self.0.extensions.get(name).cloned().unwrap_or_default()
    }

    /// A line for the log. Anybody can be refused without a token as often as the rate limits
    /// allow, so those refusals are counted in the metrics and logged only in detail.
    fn log(&self, caller: Option<&Caller>) {
        let (kind, detail) = (self.0.kind.name(), self.0.detail.as_str());
        let is_known = caller.is_some_and(|Caller(principal)| principal.is_some());
        if is_known || self.0.kind.status().is_server_error() {
            tracing::info!(kind, detail, "refused");
        } else {
            tracing::debug!(kind, detail, "refused");
        }
    }

    /// The answer to a request for the path `instance`, for layers outside of [`render`].
    pub(crate) fn answer(self, instance: &str) -> Response {
        self.log(None);
        self.write(Response::default(), instance)
    }

    /// Writes the problem into a response, in place of its body.
    fn write(self, response: Response, instance: &str) -> Response {
        let (mut parts, _) = response.into_parts();
        parts.status = self.0.kind.status();
        parts.headers.remove(header::CONTENT_LENGTH);
        let mut written = (parts, Json(self.document(instance))).into_response();
        let headers = written.headers_mut();
        headers.extend(self.0.headers);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.0.kind == Kind::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        written
    }

    fn document(&self, instance: &str) -> Value {
        let kind = self.0.kind;
        let mut members = Map::new();
        members.insert("type".into(), format!("/problems/{}", kind.name()).into());
        members.insert("title".into(), kind.title().into());
        members.insert("status".into(), kind.status().as_u16().into());
        members.insert("detail".into(), self.0.detail.as_str().into());
        members.insert("instance".into(), cut(instance.to_owned()).into());
        members.extend(self.0.extensions.clone());
        Value::Object(members)
    }
}

/// The text, cut to the length that a problem may repeat.
fn cut(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(MAX_TEXT) {
        text.truncate(end);
        text.push('…');
    }
    text
}

fn cut_texts(value: Value) -> Value {
    match value {
        Value::String(text) => cut(text).into(),
        Value::Array(values) => values.into_iter().map(cut_texts).collect(),
        Value::Object(members) => {
            members.into_iter().map(|(name, value)| (name, cut_texts(value))).collect()
        }
        value => value,
    }
}

impl From<Kind> for Problem {
    fn from(kind: Kind) -> Self {
        Self::new(kind, kind.title())
    }
}

impl IntoResponse for Problem {
    /// The status, with the problem as an extension for [`render`].
    fn into_response(self) -> Response {
        let mut response = self.0.kind.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// The layer that writes problems as JSON. An error response without a problem, from axum or from
/// another layer, gets the kind that belongs to its status.
pub async fn render(request: Request, next: Next) -> Response {
    let instance = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    let status = response.status();
    let problem = response.extensions_mut().remove::<Problem>();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let problem = problem.unwrap_or_else(|| Kind::of_status(status).into());
    problem.log(response.extensions().get::<Caller>());
    problem.write(response, &instance)
}

/// The answer of a handler that panicked.
pub fn panicked(_: Box<dyn std::any::Any + Send + 'static>) -> Response {
    Problem::new(Kind::InternalError, FAULT).into_response()
}
