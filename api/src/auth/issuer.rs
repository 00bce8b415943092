//! The keys of an identity provider: fetched, kept, and looked for again.
//!
//! They are fetched every now and then, and at once when a token names a key that is not known, but
//! not more often than [`COOL_DOWN`] allows: whoever makes up key ids must not make us hammer the
//! issuer. Without the issuer the keys go on counting for a bounded time.

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

/// How long an answer of the issuer may take, all of it.
const FETCH_TIME: Duration = Duration::from_secs(5);
/// The most bytes of a key set.
const MAX_KEY_SET_BYTES: usize = 64 * 1024;
/// Between two looks for unknown keys.
const COOL_DOWN: Duration = Duration::from_secs(10);
/// The first rest after a failure; it doubles up to [`MOST_BACKOFF`].
const BACKOFF: Duration = Duration::from_secs(1);
const MOST_BACKOFF: Duration = Duration::from_secs(30);

/// Where a key set is, and how long it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySetSource {
    url: Url,
    /// It is fetched again after this.
    pub refresh: Duration,
    /// It counts for so long after it was fetched, if it cannot be fetched again.
    pub stale: Duration,
    /// How long an answer may take.
    within: Duration,
}

impl KeySetSource {
    /// Of a key set at `url`: `https`, or `http` on loopback, where nobody is in between.
    ///
    /// # Errors
    /// What is wrong with the address.
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

/// Why a key set was not got.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The issuer does not answer, or not in time.
    #[error("the issuer does not answer")]
    Unreachable(#[source] reqwest::Error),
    /// It answers with something else.
    #[error("the issuer answers with {0}")]
    Status(StatusCode),
    /// A larger set is not read.
    #[error("the key set is larger than 64 KiB")]
    TooLarge,
    /// It does not read, or no key in it is usable.
    #[error("the key set cannot be used")]
    Unusable(#[source] AuthKeyError),
}

/// An issuer that is asked for its keys.
pub(super) struct Issuer {
    source: KeySetSource,
    client: Client,
    environment: Arc<dyn Environment>,
    /// Held while it is asked.
    asking: Mutex<()>,
    asked: SyncMutex<Asked>,
}

/// When it was asked, by the clock that never runs backwards.
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
        // A redirect could lead away from https.
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

    /// Whether there are keys, and not too old.
    pub fn is_fresh(&self) -> bool {
        let answered = self.asked().answered;
        answered.is_some_and(|at| self.environment.monotonic() < at + self.source.stale)
    }

    /// Whether an unknown key is a reason to ask: nobody did a moment ago, or the answer is still
    /// under way.
    pub fn may_be_asked(&self) -> bool {
        let asked = *self.asked();
        asked.under_way
            || asked.last.is_none_or(|last| self.environment.monotonic() >= last + COOL_DOWN)
    }

    /// Asks, unless somebody did a moment ago; else waits for their answer.
    pub async fn fetch_once(&self, take: impl FnOnce(Vec<TrustedKey>)) {
        let _asking = self.asking.lock().await;
        let last = self.asked().last;
        if last.is_none_or(|last| self.environment.monotonic() >= last + COOL_DOWN) {
            self.ask(take).await;
        }
    }

    /// Asks; whether there are keys now.
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
                tracing::warn!(error, url = %self.source.url, "the keys of tokens were not got");
            }
        }
    }

    async fn download(&self) -> Result<Vec<TrustedKey>, FetchError> {
        let request = self.client.get(self.source.url.clone());
        let request = request.header(ACCEPT, "application/jwk-set+json, application/json");
        let mut response = request.send().await.map_err(FetchError::Unreachable)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(FetchError::Unreachable)? {
            if body.len() + piece.len() > MAX_KEY_SET_BYTES {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&piece);
        }
        read_key_set(&body).map_err(FetchError::Unusable)
    }

    /// Rests until it is time to ask again.
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

#[cfg(test)]
mod tests;
