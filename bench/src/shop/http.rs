//! Requests over HTTP to the whole program.

use super::PATIENCE;
use anyhow::{Context, Result, ensure};
use events::order::Line;
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use std::net::SocketAddr;
use uuid::Uuid;

/// A client of the program that keeps its connections open.
#[derive(Clone)]
pub struct Http {
    client: Client,
    base: String,
    token: String,
}

impl Http {
    /// Makes a client of the program at `address` with a token of role `staff`.
    ///
    /// # Errors
    /// When the client cannot be created.
    pub fn new(address: SocketAddr, token: String) -> Result<Self> {
        let client = Client::builder().no_proxy().timeout(PATIENCE).build()?;
        Ok(Self { client, base: format!("http://{address}/api/v1"), token })
    }

    async fn ask(&self, request: RequestBuilder, expected: StatusCode) -> Result<Value> {
        let response = request.bearer_auth(&self.token).send().await?;
        let (status, body) = (response.status(), response.bytes().await?);
        let text = || String::from_utf8_lossy(&body);
        ensure!(status == expected, "{status} instead of {expected}: {}", text());
        serde_json::from_slice(&body).with_context(|| text().into_owned())
    }

    async fn post(
        &self,
        path: String,
        body: Value,
        key: Option<Uuid>,
        expected: StatusCode,
    ) -> Result<Value> {
        let mut request = self.client.post(path).json(&body);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key.to_string());
        }
        self.ask(request, expected).await
    }

    pub(super) async fn change_stock(&self, product: Uuid, key: Option<Uuid>) -> Result<()> {
        let path = format!("{}/products/{product}/stock", self.base);
        let body = json!({"quantity": 1, "reason": "received"});
        self.post(path, body, key, StatusCode::OK).await?;
        Ok(())
    }

    pub(super) async fn order(
        &self,
        customer: Uuid,
        lines: &[Line],
        key: Option<Uuid>,
    ) -> Result<Uuid> {
        let path = format!("{}/orders", self.base);
        let body =
            json!({"customer_id": customer, "items": lines, "payment_method": "pm_card_visa"});
        let order = self.post(path, body, key, StatusCode::CREATED).await?;
        ensure!(order["status"] == "confirmed", "an order is {}", order["status"]);
        Ok(order["order_id"].as_str().context("an order without an id")?.parse()?)
    }

    /// Gets `path` below `/api/v1` as a client that already has the current version
    /// (`If-None-Match`).
    ///
    /// # Errors
    /// When the status is not 304.
    pub async fn get_not_modified(&self, path: &str) -> Result<()> {
        let request = self.client.get(format!("{}{path}", self.base)).bearer_auth(&self.token);
        let status = request.header("If-None-Match", "*").send().await?.status();
        ensure!(status == StatusCode::NOT_MODIFIED, "{status} instead of 304");
        Ok(())
    }

    /// Gets a missing order by an invalid id: everything but the read models is involved.
    ///
    /// # Errors
    /// When the status is not 404.
    pub async fn get_missing(&self) -> Result<()> {
        let request = self.client.get(format!("{}/orders/nothing", self.base));
        let response = request.bearer_auth(&self.token).send().await?;
        let status = response.status();
        response.bytes().await?;
        ensure!(status == StatusCode::NOT_FOUND, "{status} instead of 404");
        Ok(())
    }

    /// Gets `path` below `/api/v1`.
    ///
    /// # Errors
    /// When the answer is not 200 with JSON.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.ask(self.client.get(format!("{}{path}", self.base)), StatusCode::OK).await
    }
}
