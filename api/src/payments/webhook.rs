//! `POST /payments/webhook`.

use crate::{
    App,
    command::detached,
    extract::{self, single},
    problem::{Kind, Problem},
};
use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName},
};
use commands::{
    dispatch::NoticeResult,
    gateway::stripe::webhook::{BadSignature, Notice, SIGNATURE_HEADER, verify},
};
use serde_json::{Value, json};
use std::sync::Arc;

/// Receive a notice from Stripe that a payment has changed.
///
/// The shop does not rely on the notice's content: it fetches the payment from Stripe and records
/// its state at the order. So a notice may come twice, late or out of order, and a notice about
/// something else changes nothing. Without Stripe, or without `STRIPE_WEBHOOK_SECRET`, this path is
/// `not-found`.
#[utoipa::path(
    post,
    path = "/api/v1/payments/webhook",
    tag = "payments",
    operation_id = "payment_webhook",
    params(("Stripe-Signature" = String, Header, description = "`t=<seconds>,v1=<HMAC-SHA-256>`")),
    request_body(content = Object, description = "A Stripe event, at most 512 KiB"),
    responses(
        (status = 200, description = "The notice was handled, or needs no handling.",
         body = Object),
        (status = 400, description = "`invalid-signature`: nothing was done"),
        (status = 404, description = "`not-found`: this shop receives no notices"),
        (status = 408, description = "`request-timeout`: the body did not arrive in time"),
        (status = 503, description = "`unavailable`: Stripe or the order's partition does not \
                                      answer; Stripe sends the notice again"),
    ),
    security(()),
)]
pub async fn webhook(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    if app.webhook.is_none() {
        app.router()?;
        return Err(Problem::new(Kind::NotFound, "this shop receives no notices"));
    }
    let body = extract::bytes(body, MAX_NOTICE_BYTES).await?;
    // A notice is handled to its end, even if the sender disconnects.
    detached(async move { follow(&app, &headers, &body).await }).await
}

/// The most bytes of a notice. Stripe repeats for days what is refused, and then sends no more notices.
const MAX_NOTICE_BYTES: usize = 512 * 1024;

const SIGNATURE: HeaderName = HeaderName::from_static(SIGNATURE_HEADER);

async fn follow(app: &App, headers: &HeaderMap, body: &[u8]) -> Result<Json<Value>, Problem> {
    let Some(webhook) = &app.webhook else { return Err(Problem::not_found("webhook")) };
    let signature = single(headers, &SIGNATURE).ok().flatten();
    let signature = signature.and_then(|value| value.to_str().ok());
    let checked = signature
        .ok_or(BadSignature::Malformed)
        .and_then(|header| verify(&webhook.secret, header, body, app.environment.now()));
    if let Err(bad) = checked {
        count("refused");
        return Err(Problem::new(Kind::InvalidSignature, bad.to_string()));
    }
    let Notice { kind, payment_id } = Notice::of(body);
    let Some(payment_id) = payment_id else { return Ok(heard("ignored")) };
    match webhook.payments.follow_up(&payment_id).await {
        Ok(outcome) => {
            tracing::debug!(kind, payment_id, ?outcome, "handled a notice of the gateway");
            Ok(heard(word(outcome)))
        }
        Err(error) => {
            count("failed");
            let cause = &error as &dyn std::error::Error;
            tracing::info!(kind, payment_id, cause, "a notice cannot be handled now");
            Err(Problem::unavailable("the payment cannot be looked up now").retry_after(30))
        }
    }
}

fn word(result: NoticeResult) -> &'static str {
    match result {
        NoticeResult::Recorded => "recorded",
        NoticeResult::Pending => "open",
        NoticeResult::NotOurs => "ignored",
    }
}

fn heard(result: &'static str) -> Json<Value> {
    count(result);
    Json(json!({ "result": result }))
}

fn count(result: &'static str) {
    metrics::counter!("orderlog_payment_notices_total", "result" => result).increment(1);
}
