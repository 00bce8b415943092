//! Errors as RFC 9457 problem documents.
//!
//! A handler returns a [`Problem`]; [`render`], the outermost layer but one, writes it out with the
//! path it happened at. So what axum itself answers (no such route, no such method) leaves in the
//! same form.

mod example;
mod kind;
mod pages;
mod refusals;

pub use example::example;
pub use kind::Kind;
pub use pages::{index, page};

use crate::{causality::LOG_POSITION, idempotency::IDEMPOTENCY_REPLAYED};
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

/// An error as its caller sees it.
#[derive(Clone, Debug)]
pub struct Problem(Box<Content>);

#[derive(Clone, Debug)]
struct Content {
    kind: Kind,
    detail: String,
    extensions: Map<String, Value>,
    headers: HeaderMap,
}

/// One fault of a request, at its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// Where in the body, as a JSON Pointer (RFC 6901).
    #[schema(example = "/items/0/quantity")]
    pub pointer: String,
    /// What is wrong there.
    #[schema(example = "must be from 1 to 1000000")]
    pub detail: String,
}

/// A problem document (RFC 9457). Kinds have members of their own beside these, described at their
/// `type`.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Problem)]
#[allow(dead_code, reason = "describes the members in the OpenAPI document")]
pub struct ProblemBody {
    /// `/problems/<name>`, where it is described.
    #[serde(rename = "type")]
    #[schema(example = "/problems/validation-failed")]
    kind: String,
    /// The same for every occurrence.
    title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What happened this time.
    detail: String,
    /// The path it happened at.
    instance: String,
    /// What is wrong where in the body.
    #[schema(value_type = Vec<FieldError>, required = false)]
    errors: (),
    /// The query parameter or header that does not read.
    #[schema(value_type = String, required = false)]
    parameter: (),
    /// The order that was rejected.
    #[schema(value_type = uuid::Uuid, required = false)]
    order_id: (),
    /// The product that was short or missing.
    #[schema(value_type = uuid::Uuid, required = false)]
    product_id: (),
    /// Units that were free.
    #[schema(value_type = i64, required = false)]
    available: (),
    /// Units asked for.
    #[schema(value_type = i64, required = false)]
    requested: (),
    /// Units in the house.
    #[schema(value_type = i64, required = false)]
    on_hand: (),
    /// Units of these held for orders.
    #[schema(value_type = i64, required = false)]
    reserved: (),
    /// Where the order stands.
    #[schema(value_type = String, required = false)]
    from: (),
    /// Where it was asked to go.
    #[schema(value_type = String, required = false)]
    to: (),
    /// The gateway's word for a declined payment.
    #[schema(value_type = String, required = false)]
    decline_code: (),
    /// The version that the resource has.
    #[schema(value_type = u64, required = false)]
    current_version: (),
    /// Items that a wishlist may have.
    #[schema(value_type = u64, required = false)]
    most: (),
    /// The read model that keeps the resource back.
    #[schema(value_type = String, required = false)]
    projection: (),
    /// The stream that it keeps back.
    #[schema(value_type = String, required = false)]
    stream: (),
    /// The partitions of a node that is not ready, and how they are.
    #[schema(value_type = Vec<Object>, required = false)]
    partitions: (),
    /// What to look for, when it is unknown whether it exists.
    #[schema(value_type = uuid::Uuid, required = false)]
    id: (),
}

impl Problem {
    /// A problem of this kind; `detail` is a sentence for people, about this one occurrence.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let (detail, extensions, headers) = (detail.into(), Map::new(), HeaderMap::new());
        Self(Box::new(Content { kind, detail, extensions, headers }))
    }

    /// A part of the system does not answer right now.
    pub fn unavailable(detail: &'static str) -> Self {
        Self::new(Kind::Unavailable, detail).retry_after(1)
    }

    /// There is nothing at this path.
    pub fn not_found(what: &str) -> Self {
        Self::new(Kind::NotFound, format!("there is no such {what}"))
    }

    /// A query parameter, header, cursor or token that does not read.
    pub fn invalid_parameter(name: &str, detail: &str) -> Self {
        Self::new(Kind::InvalidParameter, format!("{name}: {detail}")).with("parameter", name)
    }

    /// The program failed; what happened is in its log, not in the answer.
    pub fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error, "a request failed");
        Self::new(Kind::InternalError, "the request failed, and the fault is logged")
    }

    /// The same with a member more.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.extensions.insert(name.to_owned(), value.into());
        self
    }

    /// The same with what is wrong at which places of the body.
    #[must_use]
    pub fn with_errors(self, errors: &[FieldError]) -> Self {
        let errors = errors
            .iter()
            .map(|error| serde_json::json!({ "pointer": error.pointer, "detail": error.detail }));
        self.with("errors", Value::Array(errors.collect()))
    }

    /// The same with a header; a value that is no header text is left out.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.0.headers.insert(name, value);
        }
        self
    }

    /// The same with a `Retry-After` of `seconds`.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        self.with_header(header::RETRY_AFTER, &seconds.to_string())
    }

    /// The same with the causal token of what was decided.
    #[must_use]
    pub fn with_position(self, position: &LogPosition) -> Self {
        self.with_header(LOG_POSITION, &position.to_string())
    }

    /// The same, marked as given before if it was.
    #[must_use]
    pub fn replayed(self, replayed: bool) -> Self {
        if replayed { self.with_header(IDEMPOTENCY_REPLAYED, "true") } else { self }
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// A member beside the standard ones; null when there is none of this name.
    pub fn extension(&self, name: &str) -> Value {
        self.0.extensions.get(name).cloned().unwrap_or_default()
    }

    fn document(&self, instance: &str) -> Value {
        let kind = self.0.kind;
        let mut members = Map::new();
        members.insert("type".into(), format!("/problems/{}", kind.name()).into());
        members.insert("title".into(), kind.title().into());
        members.insert("status".into(), kind.status().as_u16().into());
        members.insert("detail".into(), self.0.detail.as_str().into());
        members.insert("instance".into(), instance.into());
        members.extend(self.0.extensions.clone());
        Value::Object(members)
    }
}

impl From<Kind> for Problem {
    fn from(kind: Kind) -> Self {
        Self::new(kind, kind.title())
    }
}

impl IntoResponse for Problem {
    /// The status, and the problem itself for [`render`] to write out.
    fn into_response(self) -> Response {
        let mut response = self.0.kind.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// The layer that writes problems out. An error without one (from axum itself, or from a layer)
/// gets the general one of its status.
pub async fn render(request: Request, next: Next) -> Response {
    let instance = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    let status = response.status();
    let problem = response.extensions_mut().remove::<Problem>();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let problem = problem.unwrap_or_else(|| Kind::of_status(status).into());
    tracing::info!(kind = problem.0.kind.name(), detail = problem.0.detail, "refused");
    let (mut parts, _) = response.into_parts();
    parts.status = problem.0.kind.status();
    parts.headers.remove(header::CONTENT_LENGTH);
    let mut written = (parts, Json(problem.document(&instance))).into_response();
    let headers = written.headers_mut();
    headers.extend(problem.0.headers);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if problem.0.kind == Kind::Unauthenticated {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    written
}

/// What a handler that panicked answers with.
pub fn panicked(_: Box<dyn std::any::Any + Send + 'static>) -> Response {
    Problem::new(Kind::InternalError, "the request failed, and the fault is logged").into_response()
}
