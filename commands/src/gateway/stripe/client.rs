//! HTTP requests to Stripe.
//!
//! This client never retries. Its caller is called again later, and then first looks up what the
//! failed request has done.

use super::{ApiBase, Failure, Secret};
use reqwest::{
    Method, StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue},
    redirect::Policy,
};
use rustc_hash::FxHashMap;
use serde::de::DeserializeOwned;
use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// The version of Stripe's API that this code was written for.
const VERSION: HeaderValue = HeaderValue::from_static("2024-06-20");
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Less than the dispatcher's time limit, so that a request that hangs is reported as such and not
/// as a gateway that hangs.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The largest response, in bytes. Stripe's responses have a few thousand.
const MAX_ANSWER: usize = 1 << 20;
/// How many failed steps the client remembers. Forgetting one delays the step by a day at most and
/// costs no money.
const MAX_SPOILT: usize = 4_096;

/// Why no client can be created.
#[derive(Debug, thiserror::Error)]
pub enum NoClient {
    /// The key contains characters that an HTTP header cannot have.
    #[error("the secret key contains characters that an HTTP header cannot have")]
    Key,
    /// TLS cannot be set up.
    #[error("TLS to the payment gateway cannot be set up")]
    Tls(#[source] reqwest::Error),
}

/// An HTTP client for one Stripe account.
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    /// Steps that Stripe answered with a fault, and how often. Stripe repeats a remembered fault
    /// for a day, so the next attempt uses another idempotency key. That is safe: the caller has
    /// looked up by then what the failed attempt has done.
    spoilt: Mutex<FxHashMap<Box<str>, u32>>,
    shut_out: AtomicBool,
}

impl Client {
    pub fn try_new(base: &ApiBase, secret_key: &Secret) -> Result<Self, NoClient> {
        let bearer = format!("Bearer {}", secret_key.reveal());
        let mut bearer = HeaderValue::try_from(bearer).map_err(|_| NoClient::Key)?;
        bearer.set_sensitive(true);
        let headers = [
            (AUTHORIZATION, bearer),
            (reqwest::header::HeaderName::from_static("stripe-version"), VERSION),
        ];
        let mut builder = reqwest::Client::builder()
            .default_headers(HeaderMap::from_iter(headers))
            .user_agent(concat!("orderlog/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT);
        if base.is_loopback() {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(NoClient::Tls)?;
        let (spoilt, shut_out) = (Mutex::default(), AtomicBool::new(false));
        Ok(Self { http, base: base.0.clone(), spoilt, shut_out })
    }

    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<T, Failure> {
        let mut url = self.url(path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.send(self.http.request(Method::GET, url)).await
    }

    /// Sends a form. `step` is the idempotency key: Stripe carries out the same step once, as long
    /// as it remembers the key.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        step: &str,
        form: &[(&str, &str)],
    ) -> Result<T, Failure> {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = self
            .http
            .request(Method::POST, self.url(path)?)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header("Idempotency-Key", self.key_of(step))
            .body(body);
        let answer = self.send(request).await;
        // Stripe gives the same answer under the same key for a day.
        match &answer {
            Err(Failure::NotNow(refused)) if refused.is_fault() => self.spoil(step),
            Err(Failure::Refused(refused)) if refused.is_about_balance() => self.spoil(step),
            _ => {}
        }
        answer
    }

    /// The ids in a path come from Stripe and from its notices. A path with other characters is
    /// refused.
    fn url(&self, path: &str) -> Result<Url, Failure> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'/');
        if !path.bytes().all(plain) {
            return Err(Failure::Malformed);
        }
        self.base.join(&format!("/v1/{path}")).map_err(|_| Failure::Malformed)
    }

    fn key_of(&self, step: &str) -> String {
        let spoilt = self.spoilt.lock().unwrap_or_else(PoisonError::into_inner);
        spoilt.get(step).map_or_else(|| step.to_owned(), |tries| format!("{step}#{tries}"))
    }

    fn spoil(&self, step: &str) {
        let mut spoilt = self.spoilt.lock().unwrap_or_else(PoisonError::into_inner);
        if spoilt.len() >= MAX_SPOILT && !spoilt.contains_key(step) {
            spoilt.clear();
        }
        *spoilt.entry(step.into()).or_default() += 1;
    }

    async fn send<T: DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<T, Failure> {
        let no_answer = |error: reqwest::Error| Failure::NoAnswer(error.without_url());
        let mut response = request.send().await.map_err(no_answer)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(no_answer)? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(Failure::Malformed);
            }
            body.extend_from_slice(&chunk);
        }
        self.note_access(status);
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|_| Failure::Malformed);
        }
        Err(Failure::of(status, &headers, &body))
    }

    /// Logs once that Stripe refuses the secret key, not for every order that waits. Only the
    /// operator can resolve it.
    fn note_access(&self, status: StatusCode) {
        let shut_out = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if self.shut_out.swap(shut_out, Ordering::Relaxed) != shut_out && shut_out {
            tracing::error!(
                status = status.as_u16(),
                "Stripe refuses the secret key, or the key lacks a permission: orders stay pending \
                 until STRIPE_SECRET_KEY is corrected"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_stripe_remembers_is_asked_under_another_key() {
        let client = Client::try_new(&ApiBase::default(), &"sk_test_x".into()).unwrap();
        assert_eq!(client.key_of("a/confirm"), "a/confirm");
        client.spoil("a/confirm");
        assert_eq!(client.key_of("a/confirm"), "a/confirm#1");
        for step in 0..MAX_SPOILT {
            client.spoil(&format!("{step}"));
        }
        assert!(client.spoilt.lock().unwrap().len() <= MAX_SPOILT);
    }

    #[test]
    fn a_path_contains_only_valid_ids() {
        let client = Client::try_new(&ApiBase::default(), &"sk_test_x".into()).unwrap();
        assert!(client.url("payment_intents/pi_1A").is_ok());
        for path in ["payment_intents/..", "payment_intents/a?b", "payment_intents/a%2F"] {
            assert!(client.url(path).is_err(), "{path}");
        }
    }

    #[test]
    fn the_key_is_never_printed() {
        let secret = Secret::from("sk_test_hidden");
        assert!(!format!("{secret:?}").contains("hidden"));
        let Err(error) = Client::try_new(&ApiBase::default(), &"sk\nx".into()) else {
            panic!("the key is accepted")
        };
        assert!(!error.to_string().contains("sk"), "{error}");
    }
}
