//! Requests to Stripe.
//!
//! Nothing is tried again here: whoever calls is called again, and looks first what became of it.

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

/// The shape of Stripe's objects that this code was written for.
const VERSION: HeaderValue = HeaderValue::from_static("2024-06-20");
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Less than the dispatcher's patience, so that a request which hangs is told from a gateway that does not.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of an answer. Stripe's are a few thousand.
const MAX_ANSWER: usize = 1 << 20;
/// Steps whose failed answers are kept in mind. Forgetting one costs a wait of a day at most, and no money.
const MAX_SPOILT: usize = 4_096;

/// No client can be made.
#[derive(Debug, thiserror::Error)]
pub enum NoClient {
    /// The key has characters that no key has.
    #[error("the secret key cannot be sent")]
    Key,
    /// TLS cannot be set up.
    #[error("TLS to the payment gateway cannot be set up")]
    Tls(#[source] reqwest::Error),
}

/// Requests to one account.
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    /// Steps whose answer was a fault, with how often. Stripe gives a remembered fault again for a day, so the next try is under
    /// another key: by then it was looked what became of this one.
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

    /// `step` names what is done: the same again is done once, as far as Stripe remembers.
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
        if let Err(Failure::NotNow(refused)) = &answer
            && refused.is_fault()
        {
            self.spoil(step);
        }
        answer
    }

    /// Ids come from Stripe and from its notices; what is none of its characters is no id.
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

    /// A key that is not, or no more, Stripe's is for the operator to mend: told once, not for every order that waits.
    fn note_access(&self, status: StatusCode) {
        let shut_out = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if self.shut_out.swap(shut_out, Ordering::Relaxed) != shut_out && shut_out {
            tracing::error!(
                status = status.as_u16(),
                "Stripe does not accept our secret key, or it may not do this: orders stay pending until \
                 STRIPE_SECRET_KEY is put right"
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
    fn what_is_no_id_of_stripes_is_in_no_path() {
        let client = Client::try_new(&ApiBase::default(), &"sk_test_x".into()).unwrap();
        assert!(client.url("payment_intents/pi_1A").is_ok());
        for path in ["payment_intents/..", "payment_intents/a?b", "payment_intents/a%2F"] {
            assert!(client.url(path).is_err(), "{path}");
        }
    }

    #[test]
    fn the_key_shows_nowhere() {
        let secret = Secret::from("sk_test_hidden");
        assert!(!format!("{secret:?}").contains("hidden"));
        let Err(error) = Client::try_new(&ApiBase::default(), &"sk\nx".into()) else {
            panic!("it is taken")
        };
        assert_eq!(error.to_string(), "the secret key cannot be sent");
    }
}
