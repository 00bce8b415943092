//! Fetches the keys of an identity provider.
//!
//! The keys are fetched regularly, and at once when a token names an unknown key. The latter happens
//! at most once in [`COOL_DOWN`], so that forged key ids cannot flood the issuer with requests. If
//! the issuer does not answer, the last keys stay valid for a limited time.

use super::{
    AuthKeyError,
    key_set::{TrustedKey, read_key_set},
};
use events::Environment;
use reqwest::{Client, StatusCode, Url, header::ACCEPT, redirect::Policy};
use std::{
    net::IpAddr,
    sync::{Arc, Mutex as SyncMutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Mutex;

/// How long the issuer's whole answer may take.
const FETCH_TIME: Duration = Duration::from_secs(5);
/// The most bytes of a key set.
const MAX_KEY_SET_BYTES: usize = 64 * 1024;
/// The shortest time between two fetches because of unknown keys.
const COOL_DOWN: Duration = Duration::from_secs(10);
/// The first pause after a failure. It doubles up to [`MOST_BACKOFF`].
const BACKOFF: Duration = Duration::from_secs(1);
const MOST_BACKOFF: Duration = Duration::from_secs(30);

/// The address of a key set, and how long its keys are valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySetSource {
    url: Url,
    /// The key set is fetched again after this time.
    pub refresh: Duration,
    /// The keys are valid for this time after they were fetched, if a later fetch fails.
    pub stale: Duration,
    /// How long an answer may take.
    within: Duration,
}

impl KeySetSource {
    /// A key set at `url`, which must be `https`, or `http` on loopback, where nobody can intercept
    /// it.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub fn try_new(url: &str, refresh: Duration, stale: Duration) -> Result<Self, &'static str> {
        let url: Url = url.parse().map_err(|_| "must be a URL")?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must not hold a password");
        }
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(&url) => {}
            _ => return Err("must be https, or http on loopback"),
        }
        Ok(Self { url, refresh, stale, within: FETCH_TIME })
    }
}

fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or(host == "localhost", |address| address.is_loopback())
}

/// Why a key set could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The issuer did not answer in time.
    #[error("the issuer does not answer")]
    Unreachable(#[source] reqwest::Error),
    /// The issuer answered with another status than 200.
    #[error("the issuer answers with {0}")]
    Status(StatusCode),
    /// The key set is too large.
    #[error("the key set is larger than 64 KiB")]
    TooLarge,
    /// The key set is malformed or has no usable key.
    #[error("the key set cannot be used")]
    Unusable(#[source] AuthKeyError),
}

/// An issuer whose keys are fetched.
pub(super) struct Issuer {
    source: KeySetSource,
    client: Client,
    environment: Arc<dyn Environment>,
    /// Locked during a fetch.
    asking: Mutex<()>,
    asked: SyncMutex<Asked>,
}

/// When the keys were fetched, by the monotonic clock.
#[derive(Clone, Copy, Default)]
struct Asked {
    last: Option<Duration>,
    under_way: bool,
    answered: Option<Duration>,
    failures: u32,
}

impl Issuer {
    pub fn new(
        source: KeySetSource,
        environment: Arc<dyn Environment>,
    ) -> Result<Self, AuthKeyError> {
        // A redirect could lead to plain http.
        let mut client = Client::builder().timeout(source.within).redirect(Policy::none());
        if is_loopback(&source.url) {
            client = client.no_proxy();
        }
        let client = client.build().map_err(AuthKeyError::Client)?;
        let (asking, asked) = (Mutex::default(), SyncMutex::default());
        Ok(Self { source, client, environment, asking, asked })
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there are keys that are not too old.
    pub fn is_fresh(&self) -> bool {
        let answered = self.asked().answered;
        answered.is_some_and(|at| self.environment.monotonic() < at + self.source.stale)
    }

    /// Whether an unknown key is a reason to fetch the keys: the last fetch is long enough ago, or
    /// is still under way.
    pub fn may_be_asked(&self) -> bool {
        let asked = *self.asked();
        asked.under_way
            || asked.last.is_none_or(|last| self.environment.monotonic() >= last + COOL_DOWN)
    }

    /// Fetches the keys, unless another caller has just done that. Waits for a fetch under way.
    pub async fn fetch_once(&self, take: impl FnOnce(Vec<TrustedKey>)) {
        let _asking = self.asking.lock().await;
        let last = self.asked().last;
        if last.is_none_or(|last| self.environment.monotonic() >= last + COOL_DOWN) {
            self.ask(take).await;
        }
    }

    /// Fetches the keys. Returns whether there are valid keys now.
    pub async fn fetch(&self, take: impl FnOnce(Vec<TrustedKey>)) -> bool {
        let _asking = self.asking.lock().await;
        self.ask(take).await;
        self.is_fresh()
    }

    async fn ask(&self, take: impl FnOnce(Vec<TrustedKey>)) {
        let now = self.environment.monotonic();
        {
            let mut asked = self.asked();
            (asked.last, asked.under_way) = (Some(now), true);
        }
        let answer = self.download().await;
        let outcome = if answer.is_ok() { "ok" } else { "failed" };
        metrics::counter!("orderlog_auth_key_fetches_total", "outcome" => outcome).increment(1);
        let mut asked = self.asked();
        asked.under_way = false;
        match answer {
            Ok(keys) => {
                take(keys);
                (asked.answered, asked.failures) = (Some(now), 0);
            }
            Err(error) => {
                asked.failures = asked.failures.saturating_add(1);
                drop(asked);
                let error: &(dyn std::error::Error + 'static) = &error;
                let url = without_secrets(&self.source.url);
                tracing::warn!(error, url, "the issuer's keys could not be fetched");
            }
        }
    }

    async fn download(&self) -> Result<Vec<TrustedKey>, FetchError> {
        let request = self.client.get(self.source.url.clone());
        let request = request.header(ACCEPT, "application/jwk-set+json, application/json");
        // The library's error repeats the URL.
        let unreachable = |error: reqwest::Error| FetchError::Unreachable(error.without_url());
        let mut response = request.send().await.map_err(unreachable)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(unreachable)? {
            if body.len() + piece.len() > MAX_KEY_SET_BYTES {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&piece);
        }
        read_key_set(&body).map_err(FetchError::Unusable)
    }

    /// Waits until it is time for the next fetch.
    pub async fn rest(&self) {
        let failures = self.asked().failures;
        let rest = match failures.checked_sub(1) {
            None => self.source.refresh,
            Some(doublings) => {
                let rest = BACKOFF.saturating_mul(1 << doublings.min(16));
                rest.min(MOST_BACKOFF).min(self.source.refresh)
            }
        };
        let jitter = self.environment.jitter(rest / 10);
        self.environment.sleep(rest + jitter).await;
    }
}

/// The URL for the log: without a user, a password and a query, which may contain a key.
fn without_secrets(url: &Url) -> String {
    let mut url = url.clone();
    // This fails only for URLs that have no user.
    let _ = url.set_username("").and_then(|()| url.set_password(None));
    url.set_query(None);
    url.into()
}

#[cfg(test)]
mod tests;
