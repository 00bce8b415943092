//! A client of the HTTP interface.

use reqwest::{Client, Method, header::HeaderMap};
use serde_json::{Value, json};
use std::{fmt, time::Duration};
use uuid::Uuid;

/// Longer than any answer may take.
const TIMEOUT: Duration = Duration::from_secs(90);

/// A caller with or without a token.
#[derive(Clone)]
pub struct Api {
    client: Client,
    base: String,
    token: Option<String>,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

/// A request being put together.
#[must_use]
pub struct Call {
    request: reqwest::RequestBuilder,
}

impl Api {
    pub fn new(base: impl Into<String>, token: Option<String>) -> Self {
        let client = Client::builder().timeout(TIMEOUT).no_proxy().build().unwrap();
        Self { client, base: base.into(), token }
    }

    /// The same server, another caller.
    pub fn with_token(&self, token: impl Into<String>) -> Self {
        Self { token: Some(token.into()), ..self.clone() }
    }

    pub fn anonymous(&self) -> Self {
        Self { token: None, ..self.clone() }
    }

    /// `path` below `/api/v1`, or from the root when it begins with `//`.
    pub fn call(&self, method: Method, path: &str) -> Call {
        let url = match path.strip_prefix('/') {
            Some(root) if root.starts_with('/') => format!("{}{root}", self.base),
            _ => format!("{}/api/v1{path}", self.base),
        };
        let mut request = self.client.request(method, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        Call { request }
    }

    pub fn get(&self, path: &str) -> Call {
        self.call(Method::GET, path)
    }

    pub fn post(&self, path: &str, body: &Value) -> Call {
        self.call(Method::POST, path).json(body)
    }

    pub fn patch(&self, path: &str, body: &Value) -> Call {
        self.call(Method::PATCH, path).json(body)
    }

    /// What readiness says; `None` while the node is not ready, as far as the last look says.
    pub async fn ready(&self) -> Option<Value> {
        let answer = self.get("//readyz").send().await;
        (answer.status == 200).then_some(answer.body)
    }

    /// A new product.
    pub async fn product(&self, price: i64, stock: i64) -> Uuid {
        let body = json!({
            "name": "A book",
            "category": "books",
            "price": {"amount": price, "currency": "GBP"},
            "initial_stock": stock,
        });
        self.post("/products", &body).expect(201).await.id("product_id")
    }

    /// A new customer with an address nobody else has.
    pub async fn customer(&self) -> Uuid {
        let email = format!("reader-{}@example.org", Uuid::now_v7().simple());
        let body = json!({"email": email, "first_name": "A", "last_name": "Reader"});
        self.post("/customers", &body).expect(201).await.id("customer_id")
    }
}

/// The body of an order.
pub fn order(customer: Uuid, lines: &[(Uuid, i64)]) -> Value {
    order_paid_by(customer, lines, "pm_card_visa")
}

pub fn order_paid_by(customer: Uuid, lines: &[(Uuid, i64)], payment_method: &str) -> Value {
    let items: Vec<Value> = lines
        .iter()
        .map(|(product, quantity)| json!({"product_id": product, "quantity": quantity}))
        .collect();
    json!({"customer_id": customer, "items": items, "payment_method": payment_method})
}

impl Call {
    pub fn json(self, body: &Value) -> Self {
        Self { request: self.request.json(body) }
    }

    pub fn raw(self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { request: self.request.header("content-type", content_type).body(body.into()) }
    }

    pub fn header(self, name: &str, value: impl fmt::Display) -> Self {
        Self { request: self.request.header(name, value.to_string()) }
    }

    pub fn key(self, key: impl fmt::Display) -> Self {
        self.header("idempotency-key", key)
    }

    /// A read that reflects what all of these did.
    pub fn after<'a>(self, answers: impl IntoIterator<Item = &'a Answer>) -> Self {
        let position = |it: &'a Answer| it.header("log-position").expect("a command says it");
        let positions: Vec<&str> = answers.into_iter().map(position).collect();
        self.header("min-log-position", positions.join(","))
    }

    /// The answer, or that none came.
    pub async fn try_send(self) -> reqwest::Result<Answer> {
        let response = self.request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.bytes().await?;
        // What is not JSON is shown as text.
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&bytes).into_owned()));
        Ok(Answer { status, headers, body })
    }

    /// The answer as it comes.
    pub async fn open(self) -> reqwest::Response {
        self.request.send().await.unwrap()
    }

    pub async fn send(self) -> Answer {
        self.try_send().await.unwrap()
    }

    pub async fn expect(self, status: u16) -> Answer {
        let answer = self.send().await;
        assert_eq!(answer.status, status, "{:?}", answer.body);
        answer
    }
}

impl Answer {
    pub fn id(&self, name: &str) -> Uuid {
        let id = self.body[name].as_str().and_then(|id| Uuid::try_parse(id).ok());
        id.unwrap_or_else(|| panic!("no {name} in {:?}", self.body))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The name of the problem; empty when it is none.
    pub fn problem(&self) -> &str {
        let kind = self.body["type"].as_str().unwrap_or_default();
        kind.strip_prefix("/problems/").unwrap_or_default()
    }

    /// What `discounts` of an order says of a kind.
    pub fn discount(&self, kind: &str) -> Option<i64> {
        let discounts = self.body["discounts"].as_array()?;
        let one = discounts.iter().find(|discount| discount["kind"] == kind)?;
        one["amount"]["amount"].as_i64()
    }
}
