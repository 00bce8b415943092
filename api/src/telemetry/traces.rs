//! Sends traces to an OpenTelemetry collector (OTLP over HTTP).
//!
//! Each request is a span. Its trace context is written into the events and the answer, so that a
//! trace can be followed into the log and back. The SDK's own variables apply as well
//! (`OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`, `OTEL_EXPORTER_OTLP_HEADERS`).

use opentelemetry::{
    Context, Key,
    trace::{
        SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider as _,
    },
};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use std::time::Duration;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

/// How long the program waits at its end for spans that are not sent yet.
const END: Duration = Duration::from_secs(2);

/// The service name of the spans, unless `OTEL_SERVICE_NAME` is set.
const SERVICE: &str = "orderlog";

/// Sends spans until it is dropped, in batches and on a thread of its own.
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Sends spans to the collector at `endpoint`, for example `http://localhost:4318`. Must not be
    /// called from a task, because its HTTP client blocks.
    ///
    /// # Errors
    /// If the endpoint is no URL. A collector that does not answer is no error; its spans are lost.
    pub fn to(endpoint: &str) -> Result<Self, ExporterBuildError> {
        let url = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
        let exporter = SpanExporter::builder().with_http().with_endpoint(url).build()?;
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource())
            .build();
        Ok(Self(provider))
    }

    /// The layer that sends the program's own spans, whatever the filter of the log lines is.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let own = Targets::new().with_target(SERVICE, tracing::Level::INFO);
        tracing_opentelemetry::layer().with_tracer(self.0.tracer(SERVICE)).with_filter(own)
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        // If the collector is down, the remaining spans are lost.
        let _ = self.0.shutdown_with_timeout(END);
    }
}

/// The resource of the spans: from the SDK's variables, else this program.
fn resource() -> Resource {
    let told = Resource::builder().build();
    let name = told.get(&Key::from_static_str("service.name"));
    if name.is_some_and(|name| !name.as_str().starts_with("unknown_service")) {
        return told;
    }
    Resource::builder().with_service_name(SERVICE).build()
}

/// Makes `span` part of the trace of a `traceparent` with these parts.
pub(crate) fn continue_trace(span: &Span, trace_id: &str, parent_id: &str, flags: &str) {
    let (Ok(trace_id), Ok(parent_id)) = (TraceId::from_hex(trace_id), SpanId::from_hex(parent_id))
    else {
        return;
    };
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).unwrap_or_default());
    let caller = SpanContext::new(trace_id, parent_id, flags, true, TraceState::default());
    // Fails without a collector, which needs no handling.
    let _ = span.set_parent(Context::new().with_remote_span_context(caller));
}

/// The `traceparent` of `span`, if spans are sent to a collector.
pub(crate) fn traceparent(span: &Span) -> Option<String> {
    let context = span.context();
    let context = context.span().span_context().clone();
    context.is_valid().then(|| {
        let (trace_id, span_id) = (context.trace_id(), context.span_id());
        format!("00-{trace_id:032x}-{span_id:016x}-{:02x}", context.trace_flags())
    })
}
