//! Requests to Stripe, and what comes back instead of an answer.
//!
//! Nothing is tried again here: whoever calls is called again, and looks first what became of it.

use super::Secret;
use reqwest::{
    Method, StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue},
    redirect::Policy,
};
use rustc_hash::FxHashMap;
use serde::{Deserialize, de::DeserializeOwned};
use std::{
    str::FromStr,
    sync::{
        Arc, Mutex, PoisonError,
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
/// Characters of a decline's word.
const MAX_WORD: usize = 100;

/// Where Stripe's interface is: `https`, or plain `http` on loopback for tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiBase(Url);

/// It is no address that a secret key may be sent to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be https://HOST[:PORT], or http on loopback")]
pub struct BadApiBase;

impl ApiBase {
    /// Whether requests stay on this machine.
    pub fn is_loopback(&self) -> bool {
        match self.0.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
    }

    fn is_bare(&self) -> bool {
        let Self(url) = self;
        let has_login = !url.username().is_empty() || url.password().is_some();
        url.path() == "/" && url.query().is_none() && url.fragment().is_none() && !has_login
    }
}

impl Default for ApiBase {
    fn default() -> Self {
        "https://api.stripe.com".parse().expect("it is an address")
    }
}

impl FromStr for ApiBase {
    type Err = BadApiBase;

    fn from_str(text: &str) -> Result<Self, BadApiBase> {
        let base = Self(text.parse().map_err(|_| BadApiBase)?);
        let allowed = match base.0.scheme() {
            "https" => true,
            "http" => base.is_loopback(),
            _ => false,
        };
        if allowed && base.is_bare() { Ok(base) } else { Err(BadApiBase) }
    }
}

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

/// Why there is no answer to go by.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Stripe says no to this request, and will say so again.
    #[error(transparent)]
    Refused(Refused),
    /// Stripe says no for a reason of the moment or of ours, or has a fault.
    #[error("Stripe gives no answer that settles anything")]
    NotNow(#[source] Refused),
    /// Nothing came back, or not all of it: what was asked for may have been done.
    #[error("no answer came from Stripe")]
    NoAnswer(#[source] reqwest::Error),
    /// What came back makes no sense.
    #[error("the answer is not Stripe's")]
    Malformed,
}

/// An error of Stripe's. Its message is left out: it may repeat what it was sent.
#[derive(Debug, thiserror::Error)]
#[error("{status} {kind} {} (request {request_id})", code.as_deref().unwrap_or("without a code"))]
pub(super) struct Refused {
    status: u16,
    kind: String,
    code: Option<String>,
    decline_code: Option<String>,
    request_id: String,
}

#[derive(Debug, Default, Deserialize)]
struct ErrorBody {
    #[serde(default)]
    error: ErrorDetail,
}

#[derive(Debug, Default, Deserialize)]
struct ErrorDetail {
    #[serde(rename = "type", default)]
    kind: String,
    code: Option<String>,
    decline_code: Option<String>,
}

/// Codes of refusals that are about our account: no customer can do better with another card.
const OURS: [&str; 9] = [
    "account_invalid",
    "account_closed",
    "api_key_expired",
    "idempotency_key_in_use",
    "livemode_mismatch",
    "lock_timeout",
    "rate_limit",
    "secret_key_required",
    "testmode_charges_only",
];

impl Refused {
    /// Whether another request came first: the object is not where it was.
    pub fn is_about_state(&self) -> bool {
        self.code.as_deref() == Some("payment_intent_unexpected_state")
    }

    /// Whether there is no such object.
    pub fn is_missing(&self) -> bool {
        self.status == 404
    }

    /// Whether all the money of a payment went back already.
    pub fn is_given_back(&self) -> bool {
        self.code.as_deref() == Some("charge_already_refunded")
    }

    /// A word for a customer.
    pub fn decline_word(&self) -> Arc<str> {
        let code = self.code.as_deref().or(Some(self.kind.as_str())).filter(|it| !it.is_empty());
        decline_word(code, self.decline_code.as_deref())
    }

    /// Whether the request is at fault, so that it fails again.
    fn is_final(&self) -> bool {
        let about_us = self.kind == "idempotency_error"
            || self.code.as_deref().is_some_and(|code| OURS.contains(&code));
        matches!(self.status, 400 | 402 | 404 | 422) && !about_us
    }
}

/// The bank's word if there is one, else Stripe's. That a card was reported stolen is not for whoever shows it.
pub(super) fn decline_word(code: Option<&str>, decline_code: Option<&str>) -> Arc<str> {
    const UNTOLD: [&str; 5] =
        ["fraudulent", "lost_card", "merchant_blacklist", "pickup_card", "stolen_card"];
    let told = decline_code.filter(|code| !UNTOLD.contains(code) && *code != "generic_decline");
    let word = told.or(code).unwrap_or("card_declined");
    word.chars().take(MAX_WORD).collect::<String>().into()
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
            && refused.status >= 500
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
        let refused = refused(status, &headers, &body);
        Err(if refused.is_final() { Failure::Refused(refused) } else { Failure::NotNow(refused) })
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

fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Refused {
    let error = serde_json::from_slice::<ErrorBody>(body).unwrap_or_default().error;
    let request_id = headers.get("request-id").and_then(|id| id.to_str().ok()).unwrap_or("unknown");
    Refused {
        status: status.as_u16(),
        kind: error.kind,
        code: error.code,
        decline_code: error.decline_code,
        request_id: request_id.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_secret_key_goes_to_https_or_to_this_machine() {
        for good in ["https://api.stripe.com", "https://proxy:8443/", "http://127.0.0.1:12111"] {
            assert!(good.parse::<ApiBase>().is_ok(), "{good}");
        }
        for bad in [
            "http://api.stripe.com",
            "https://a:b@api.stripe.com",
            "https://api.stripe.com/v1",
            "https://api.stripe.com/?x=1",
            "ftp://127.0.0.1",
            "api.stripe.com",
            "http://127.0.0.1.example.org",
            "",
        ] {
            assert_eq!(bad.parse::<ApiBase>(), Err(BadApiBase), "{bad}");
        }
        assert!(!ApiBase::default().is_loopback());
        assert!("http://[::1]:1".parse::<ApiBase>().unwrap().is_loopback());
    }

    fn answered(status: u16, error: &serde_json::Value) -> Refused {
        let body = json!({"error": error}).to_string();
        refused(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body.as_bytes())
    }

    #[test]
    fn a_refusal_of_the_request_is_final_and_one_of_the_moment_is_not() {
        let request = json!({"type": "invalid_request_error", "code": "resource_missing"});
        let card = json!({"type": "card_error", "code": "card_declined"});
        for (status, error, is_final) in [
            (402, &card, true),
            (400, &request, true),
            (404, &request, true),
            (400, &json!({"type": "idempotency_error"}), false),
            (400, &json!({"type": "x", "code": "testmode_charges_only"}), false),
            (401, &request, false),
            (403, &request, false),
            (409, &request, false),
            (429, &request, false),
            (500, &request, false),
            (503, &json!("no object"), false),
            (302, &request, false),
        ] {
            assert_eq!(answered(status, error).is_final(), is_final, "{status} {error}");
        }
    }

    #[test]
    fn a_decline_has_the_banks_word_unless_it_is_about_theft() {
        let declined =
            |code| answered(402, &json!({"code": "card_declined", "decline_code": code}));
        assert_eq!(&*declined("insufficient_funds").decline_word(), "insufficient_funds");
        assert_eq!(&*declined("stolen_card").decline_word(), "card_declined");
        let plain = answered(400, &json!({"type": "invalid_request_error"}));
        assert_eq!(&*plain.decline_word(), "invalid_request_error");
        assert_eq!(&*answered(402, &json!(7)).decline_word(), "card_declined");
    }

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
