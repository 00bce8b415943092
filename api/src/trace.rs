//! W3C Trace Context: read from the request, written into the events and the answer.

use crate::{App, causality::set_header, extract::single, telemetry::traces};
use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, Method},
    middleware::Next,
    response::Response,
};
use std::sync::Arc;
use tracing::{Instrument, Span, field};

/// The header (<https://www.w3.org/TR/trace-context/>).
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The trace context of a request, as written into its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace(pub Box<str>);

/// The layer that gives each request a trace: the caller's, or a new one.
pub async fn follow(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let incoming = Incoming::of(request.headers());
    let span = span(&request);
    if let Some(Incoming { trace_id, parent_id, flags }) = &incoming {
        traces::continue_trace(&span, trace_id, parent_id, flags);
    }
    let traceparent = traces::traceparent(&span).unwrap_or_else(|| {
        let random = || app.environment.random().max(1);
        let (trace_id, flags) = incoming.map_or_else(
            || (format!("{:016x}{:016x}", random(), random()), "01".to_owned()),
            |incoming| (incoming.trace_id, incoming.flags),
        );
        format!("00-{trace_id}-{:016x}-{flags}", random())
    });
    span.record("trace_id", &traceparent[3..35]);
    request.extensions_mut().insert(Trace(traceparent.as_str().into()));
    let mut response = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", response.status().as_u16());
    if response.status().is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    set_header(&mut response, TRACEPARENT, &traceparent);
    response
}

/// The span of a request, with the field names of OpenTelemetry.
fn span(request: &Request) -> Span {
    let route = request.extensions().get::<MatchedPath>().map_or("no route", MatchedPath::as_str);
    tracing::info_span!(
        target: "orderlog",
        "request",
        otel.kind = "server",
        otel.name = format!("{} {route}", method(request)),
        otel.status_code = field::Empty,
        http.response.status_code = field::Empty,
        trace_id = field::Empty,
    )
}

/// The method of a request as logs, traces and metrics name it. A client can send any method, also a
/// long one, and a new one each time.
pub(crate) fn method(request: &Request) -> &'static str {
    match *request.method() {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

/// The parts of a valid `traceparent`.
#[derive(Debug, PartialEq, Eq)]
struct Incoming {
    trace_id: String,
    parent_id: String,
    flags: String,
}

impl Incoming {
    /// `None` for an invalid header or two of them, which start a new trace, as the recommendation
    /// demands.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let mut parts = single(headers, &TRACEPARENT).ok()??.to_str().ok()?.trim().split('-');
        let [version, trace_id, parent_id, flags] =
            [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
        let hex = |text: &str, length: usize| {
            text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let named = |text: &str| text.bytes().any(|byte| byte != b'0');
        // A later version may have more parts; this one may not.
        let ends = version != "00" || parts.next().is_none();
        let valid = hex(version, 2) && version != "ff" && ends;
        let valid = valid && hex(trace_id, 32) && named(trace_id);
        let valid = valid && hex(parent_id, 16) && named(parent_id) && hex(flags, 2);
        let [trace_id, parent_id, flags] = [trace_id, parent_id, flags].map(str::to_owned);
        valid.then_some(Self { trace_id, parent_id, flags })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn a_valid_trace_is_continued_and_any_other_ignored() {
        let of = |value: &'static str| {
            let headers = [(TRACEPARENT, HeaderValue::from_static(value))];
            Incoming::of(&HeaderMap::from_iter(headers)).map(|incoming| incoming.trace_id)
        };
        let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(of(valid).as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
        assert!(of("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more").is_some());
        for invalid in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(of(invalid), None, "{invalid}");
        }
    }
}
