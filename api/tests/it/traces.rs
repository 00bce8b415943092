//! Spans arrive at an OpenTelemetry collector, in the trace of the caller.

use crate::{
    app::{eventually, ground},
    program::{Program, command},
};
use axum::{Router, body::Bytes, routing::post};
use orderlog::config::LogChoice;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A collector that keeps everything it receives.
async fn collector() -> (String, Arc<Mutex<Vec<Bytes>>>) {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&kept);
    let take = async move |body: Bytes| keep.lock().unwrap().push(body);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let routes = Router::new().route("/v1/traces", post(take));
    tokio::spawn(async { axum::serve(listener, routes).await });
    (url, kept)
}

fn contains(body: &[u8], part: &[u8]) -> bool {
    body.windows(part.len()).any(|window| window == part)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_a_span_of_its_callers_trace_and_so_are_its_events() {
    let (url, kept) = collector().await;
    let ground = ground(LogChoice::Embedded).await;
    let mut program = command(&ground, &[]);
    program.env("OTEL_EXPORTER_OTLP_ENDPOINT", url);
    let program = Program::start_as(program);
    let product = program
        .staff
        .post(
            "/products",
            &serde_json::json!({"name": "A book", "price": {"amount": 1, "currency": "GBP"}}),
        )
        .header("traceparent", format!("00-{TRACE_ID}-00f067aa0ba902b7-01"))
        .expect(201)
        .await;
    let answered = product.header("traceparent").unwrap().to_owned();
    assert!(answered.starts_with(&format!("00-{TRACE_ID}-")), "{answered}");
    let stream = format!("product-{}", product.id("product_id"));
    let events = crate::program::print_of(&ground, &["events", &stream]);
    assert!(program.stop().success());

    let trace_id = u128::from_str_radix(TRACE_ID, 16).unwrap().to_be_bytes();
    let span_id = u64::from_str_radix(&answered[36..52], 16).unwrap().to_be_bytes();
    let sent = eventually("the span arrives", async || {
        let kept = kept.lock().unwrap();
        kept.iter().find(|body| contains(body, &trace_id)).cloned()
    })
    .await;
    for part in [&span_id[..], b"POST /api/v1/products", b"orderlog"] {
        assert!(contains(&sent, part), "{part:?}");
    }
    assert!(events.contains(TRACE_ID), "{events}");
}

#[test]
fn a_collector_that_is_no_url_is_a_bad_setting() {
    let output = crate::program::bare(&["projections"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "not a url")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64), "{}", String::from_utf8_lossy(&output.stderr));
}
