//! Acts that are single requests.

use super::{super::shop::TAKEN, Act, Stranger};
use anyhow::Result;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use fastrand::Rng;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::json;
use uuid::Uuid;

/// Bytes of a cursor that is too long.
const TOO_LONG: usize = 8_000;

/// Words of the catalogue, each with an error.
const MISTYPED: [&str; 8] =
    ["numbr", "bok", "boook", "nubmer", "anothr", "sheelf", "reades", "manny"];

impl Stranger {
    /// Sends one request and reads the answer.
    pub(super) async fn ask(&self, act: Act, rng: &mut Rng) -> Result<StatusCode> {
        let answer = self.request(act, rng).send().await?;
        let status = answer.status();
        answer.bytes().await?;
        Ok(status)
    }

    fn request(&self, act: Act, rng: &mut Rng) -> RequestBuilder {
        match act {
            Act::Cursors => self.with_bad_cursor(rng),
            Act::Registrations => self.register(rng),
            Act::Reports => {
                let from = format!("{}-{:02}-01T00:00:00Z", 2024 + rng.u32(0..2), rng.u32(4..12));
                self.get(&format!("/reports/sales?from={from}&bucket=day"))
                    .bearer_auth(&self.employee)
            }
            Act::Searches => {
                let words: Vec<&str> =
                    (0..=rng.usize(0..8)).map(|_| MISTYPED[rng.usize(0..MISTYPED.len())]).collect();
                self.get(&format!("/search?limit=100&q={}", words.join("+")))
            }
            Act::Missing => {
                let kind = ["orders", "customers", "products"][rng.usize(0..3)];
                let id = Uuid::from_u64_pair(rng.u64(..), rng.u64(..));
                self.get(&format!("/{kind}/{id}")).bearer_auth(&self.customer)
            }
            Act::Tokens => self.get("/orders").bearer_auth(self.bad_token(rng)),
            // The last three are not single requests.
            Act::Webhooks | Act::SlowBodies | Act::DeafReaders | Act::StalledStreams => {
                let signature = format!("t={},v1={:064x}", rng.u32(..), rng.u128(..));
                let body = json!({
                    "type": "payment_intent.succeeded",
                    "data": { "object": { "id": format!("pi_{:016x}", rng.u64(..)) } },
                });
                self.call(Method::POST, "/payments/webhook")
                    .header("Stripe-Signature", signature)
                    .json(&body)
            }
        }
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.call(Method::GET, path)
    }

    fn call(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("http://{}/api/v1{path}", self.address))
    }

    fn with_bad_cursor(&self, rng: &mut Rng) -> RequestBuilder {
        let [of_products, of_orders] = &self.cursors;
        let altered = |cursor: &str, rng: &mut Rng| {
            let mut altered = cursor.as_bytes().to_vec();
            let at = rng.usize(0..altered.len().max(1));
            if let Some(byte) = altered.get_mut(at) {
                *byte = if *byte == b'A' { b'B' } else { b'A' };
            }
            String::from_utf8_lossy(&altered).into_owned()
        };
        match rng.u8(0..5) {
            0 => self.get(&format!("/products?cursor={}", altered(of_products, rng))),
            1 => self
                .get(&format!("/orders?cursor={}", altered(of_orders, rng)))
                .bearer_auth(&self.customer),
            2 => self.get(&format!("/products?cursor={of_orders}")),
            3 => self.get(&format!("/products?cursor={}", "A".repeat(TOO_LONG))),
            _ => {
                let mut bytes = vec![0; 16];
                rng.fill(&mut bytes);
                bytes.extend_from_slice(
                    br#"{"name":"","id":"00000000-0000-0000-0000-000000000000"}"#,
                );
                self.get(&format!("/products?cursor={}", URL_SAFE_NO_PAD.encode(bytes)))
            }
        }
    }

    fn register(&self, rng: &mut Rng) -> RequestBuilder {
        let email = match rng.u8(0..2) {
            0 => TAKEN.to_owned(),
            _ => format!("stranger.{:016x}@example.org", rng.u64(..)),
        };
        let body = json!({ "email": email, "first_name": "A", "last_name": "Stranger" });
        let request = self.call(Method::POST, "/customers").json(&body);
        if rng.bool() { request.bearer_auth(&self.customer) } else { request }
    }

    /// A token that must not count.
    fn bad_token(&self, rng: &mut Rng) -> String {
        let mut parts = self.customer.split('.');
        let [head, claims, signature] = [(); 3].map(|()| parts.next().unwrap_or_default());
        match rng.u8(0..4) {
            0 => format!("{:032x}", rng.u128(..)),
            1 => format!("{}.{claims}.", URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"none"}"#)),
            2 => format!("{head}.{claims}.{}", signature.chars().rev().collect::<String>()),
            _ => {
                let admin = r#"{"iss":"orderlog","aud":"orderlog","sub":"x","role":"admin"}"#;
                format!("{head}.{}.{signature}", URL_SAFE_NO_PAD.encode(admin))
            }
        }
    }
}
