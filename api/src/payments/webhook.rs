//! `POST /payments/webhook`.

use crate::{
    App,
    command::detached,
    extract,
    problem::{Kind, Problem},
};
use axum::{Json, body::Body, extract::State, http::HeaderMap};
use commands::{
    dispatch::Heard,
    gateway::stripe::webhook::{BadSignature, Notice, SIGNATURE_HEADER, verify},
};
use serde_json::{Value, json};
use std::sync::Arc;

/// Stripe took a refund on, and its bank did not: the log has it as given back.
const REFUND_FAILED: &str = "refund.failed";

/// A notice of Stripe's that something became of a payment.
///
/// It is only a reason to look: the payment is fetched, and what became of it is told to its order.
/// So a notice may come twice, late or in any order, and one that is about something else changes
/// nothing. Without Stripe, or without `STRIPE_WEBHOOK_SECRET`, there is nothing here.
#[utoipa::path(
    post,
    path = "/api/v1/payments/webhook",
    tag = "payments",
    operation_id = "payment_webhook",
    params(("Stripe-Signature" = String, Header, description = "`t=<seconds>,v1=<HMAC-SHA-256>`")),
    request_body(content = Object, description = "An event of Stripe's, at most 64 KiB"),
    responses(
        (status = 200, description = "It was followed, or there is nothing to follow.",
         body = Object),
        (status = 400, description = "`invalid-signature`; nothing was done"),
        (status = 404, description = "`not-found`: this shop takes no notices"),
        (status = 408, description = "`request-timeout`: the body did not arrive in time"),
        (status = 503, description = "`unavailable`: Stripe or the order does not answer now; \
                                      Stripe sends the notice again"),
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
        return Err(Problem::new(Kind::NotFound, "this shop takes no notices"));
    }
    let body = extract::bytes(body).await?;
    // What was signed is followed also when the sender goes away.
    detached(async move { follow(&app, &headers, &body).await }).await
}

async fn follow(app: &App, headers: &HeaderMap, body: &[u8]) -> Result<Json<Value>, Problem> {
    let Some(webhook) = &app.webhook else { return Err(Problem::not_found("webhook")) };
    let signature = headers.get(SIGNATURE_HEADER).and_then(|value| value.to_str().ok());
    let checked = signature
        .ok_or(BadSignature::Malformed)
        .and_then(|header| verify(&webhook.secret, header, body, app.environment.now()));
    if let Err(bad) = checked {
        count("refused");
        return Err(Problem::new(Kind::InvalidSignature, bad.to_string()));
    }
    let Notice { kind, payment_id } = Notice::of(body);
    let Some(payment_id) = payment_id else { return Ok(heard("ignored")) };
    if kind == REFUND_FAILED {
        tracing::error!(payment_id, "a refund failed at Stripe: give the money back by hand");
        metrics::counter!("orderlog_payment_refunds_failed_total").increment(1);
    }
    match webhook.payments.look_at(&payment_id).await {
        Ok(outcome) => {
            tracing::debug!(kind, payment_id, ?outcome, "a notice of the gateway");
            Ok(heard(word(outcome)))
        }
        Err(error) => {
            count("failed");
            let cause = &error as &dyn std::error::Error;
            tracing::info!(kind, payment_id, cause, "a notice could not be followed now");
            Err(Problem::unavailable("the payment cannot be looked at now").retry_after(30))
        }
    }
}

fn word(heard: Heard) -> &'static str {
    match heard {
        Heard::Recorded => "recorded",
        Heard::Open => "open",
        Heard::NotOurs => "ignored",
    }
}

fn heard(result: &'static str) -> Json<Value> {
    count(result);
    Json(json!({ "result": result }))
}

fn count(result: &'static str) {
    metrics::counter!("orderlog_payment_notices_total", "result" => result).increment(1);
}
