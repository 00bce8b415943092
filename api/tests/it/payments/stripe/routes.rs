//! The routes of the Stripe server.

use super::{
    Step, Stripe, answer,
    books::{Answer, Books, Form},
    lost,
};
use axum::{
    Router,
    extract::{Path, Query, State},
    http::HeaderMap,
    response::Response,
    routing::{get, post},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Weak};

/// All routes. They hold a weak reference, so that the server's task does not keep it alive.
pub fn routes(stripe: Weak<Stripe>) -> Router {
    Router::new()
        .route("/v1/payment_intents", post(create))
        .route("/v1/payment_intents/{id}", get(retrieve))
        .route("/v1/payment_intents/{id}/{verb}", post(change))
        .route("/v1/refunds", post(refund).get(refunds))
        .with_state(stripe)
}

type Shared = State<Weak<Stripe>>;

async fn create(State(stripe): Shared, headers: HeaderMap, body: String) -> Response {
    let Some(stripe) = stripe.upgrade() else { return lost() };
    let work = |books: &mut Books, form: &Form, key: &str| books.create(form, key);
    stripe.step(Step::Create, "/v1/payment_intents", &headers, &body, work).await
}

/// Confirms or cancels a payment.
async fn change(
    State(stripe): Shared,
    Path((id, verb)): Path<(String, String)>,
    headers: HeaderMap,
    body: String,
) -> Response {
    let Some(stripe) = stripe.upgrade() else { return lost() };
    let (step, work): (_, fn(&mut Books, &str, &Form) -> Answer) = match verb.as_str() {
        "confirm" => (Step::Confirm, Books::confirm),
        "cancel" => (Step::Cancel, Books::cancel),
        _ => return answer(404, &json!({"error": {"type": "invalid_request_error"}})),
    };
    let path = format!("/v1/payment_intents/{id}/{verb}");
    let work = |books: &mut Books, form: &Form, _: &str| work(books, &id, form);
    stripe.step(step, &path, &headers, &body, work).await
}

async fn refund(State(stripe): Shared, headers: HeaderMap, body: String) -> Response {
    let Some(stripe) = stripe.upgrade() else { return lost() };
    let work = |books: &mut Books, form: &Form, _: &str| books.refund(form);
    stripe.step(Step::Refund, "/v1/refunds", &headers, &body, work).await
}

async fn retrieve(State(stripe): Shared, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let Some(stripe) = stripe.upgrade() else { return lost() };
    let path = format!("/v1/payment_intents/{id}");
    stripe.validate(&headers, reqwest::Method::GET, &path, "").await;
    stripe.change(|books| books.asked += 1);
    if let Some(refused) = stripe.shut(&headers) {
        return refused;
    }
    let books = stripe.books();
    if books.intents.contains_key(&id) && !books.forgets {
        return answer(200, &books.show(&id));
    }
    answer(404, &json!({"error": {"type": "invalid_request_error", "code": "resource_missing"}}))
}

async fn refunds(
    State(stripe): Shared,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let Some(stripe) = stripe.upgrade() else { return lost() };
    let path = format!("/v1/refunds?payment_intent={}&limit=100", query["payment_intent"]);
    stripe.validate(&headers, reqwest::Method::GET, &path, "").await;
    if let Some(refused) = stripe.shut(&headers) {
        return refused;
    }
    let books = stripe.books();
    let of = books.refunds.iter().filter(|refund| refund.1 == query["payment_intent"]);
    let data: Vec<Value> = of.map(|refund| books.show_refund(refund)).collect();
    answer(200, &json!({"object": "list", "data": data, "has_more": false}))
}
