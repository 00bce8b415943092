//! Log lines to standard error, the metrics that `/metrics` shows, and traces.

pub(crate) mod traces;

use crate::config::LogFormat;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use std::{io::IsTerminal, sync::OnceLock};
use tracing_subscriber::{EnvFilter, Layer, fmt, layer::SubscriberExt, util::SubscriberInitExt};

pub use traces::Traces;

/// Upper bounds of the buckets of every histogram in seconds: commits take milliseconds, rebuilds
/// minutes.
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// Sends log lines to standard error (standard output is for answers), and spans to `traces`. Does
/// nothing when a subscriber is set already.
pub fn log_lines(filter: &str, format: LogFormat, traces: Option<&Traces>) {
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let lines = lines.with_filter(EnvFilter::new(filter));
    // A second call, as in tests that start the program twice, finds a subscriber set: that is
    // fine.
    let _ = tracing_subscriber::registry().with(lines).with(traces.map(Traces::layer)).try_init();
}

/// The metrics of this process: one recorder, however often the program is started in it.
///
/// # Errors
/// When another recorder is installed.
pub fn metrics() -> Result<PrometheusHandle, BuildError> {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    if let Some(handle) = HANDLE.get() {
        return Ok(handle.clone());
    }
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .build_recorder();
    let handle = HANDLE.get_or_init(|| {
        let handle = recorder.handle();
        // Only a recorder from outside can be in the way, and then its owner collects.
        let _ = metrics::set_global_recorder(recorder);
        handle
    });
    Ok(handle.clone())
}
