//! Log lines to standard error, metrics for `/metrics`, and traces.

pub(crate) mod traces;

use crate::config::LogFormat;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use std::{io::IsTerminal, sync::OnceLock};
use tracing_subscriber::{EnvFilter, Layer, fmt, layer::SubscriberExt, util::SubscriberInitExt};

pub use traces::Traces;

/// The buckets of every histogram of seconds. Commits take milliseconds, rebuilds minutes.
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// Sends log lines to standard error, because standard output is for results, and spans to
/// `traces`. Does nothing if a subscriber is set already.
pub fn log_lines(filter: &str, format: LogFormat, traces: Option<&Traces>) {
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let lines = lines.with_filter(EnvFilter::new(filter));
    // A test may start the program twice in one process. Then the subscriber is set already.
    let _ = tracing_subscriber::registry().with(lines).with(traces.map(Traces::layer)).try_init();
}

/// The metrics of this process. It has one recorder, however often the program is started in it.
///
/// # Errors
/// If another recorder is installed.
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
        // This fails only if a program that embeds this crate has installed a recorder. Then that
        // recorder collects the metrics.
        let _ = metrics::set_global_recorder(recorder);
        handle
    });
    Ok(handle.clone())
}
