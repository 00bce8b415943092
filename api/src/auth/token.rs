//! Checks tokens: signature, issuer, audience, time, subject and role.

use super::{
    AuthKeyError, AuthKeys, Principal, Role,
    issuer::{Issuer, KeySetSource},
    key_set::TrustedKey,
};
use crate::problem::{Kind, Problem};
use events::{Environment, Timestamp};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

/// The issuer of tokens, unless set otherwise.
pub const ISSUER: &str = "orderlog";
/// The audience of tokens, unless set otherwise.
pub const AUDIENCE: &str = "orderlog";

/// How much the clocks of issuer and shop may differ.
const LEEWAY_SECONDS: i64 = 30;
/// The most bytes of a token.
const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// The most tokens that are remembered as verified.
const REMEMBERED: usize = 10_000;

/// Checks tokens against trusted keys. Clones share the keys.
#[derive(Clone)]
pub struct Authenticator(Arc<Inner>);

struct Inner {
    issuer: String,
    audience: String,
    trust: RwLock<Arc<Trust>>,
    /// The issuer that publishes the keys, if they are fetched.
    remote: Option<Issuer>,
}

/// The trusted keys, with the tokens that were verified with them. Both are replaced together.
#[derive(Default)]
struct Trust {
    keys: Vec<TrustedKey>,
    /// Verified tokens. To check a signature costs more than the rest of a small request.
    verified: RwLock<HashMap<String, Verified>>,
}

#[derive(Clone)]
struct Verified {
    principal: Principal,
    not_before: i64,
    expires: i64,
}

/// The caller of a valid token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The caller.
    pub principal: Principal,
    /// When the token expires, including the leeway.
    pub until: Timestamp,
}

/// Why a token is refused.
enum Refusal {
    /// It names an unknown key, which may be a new one.
    UnknownKey,
    Problem(Problem),
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::UnknownKey => refused("the token is signed with an unknown key"),
            Refusal::Problem(problem) => problem,
        }
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    role: Role,
    exp: f64,
    nbf: f64,
}

impl Authenticator {
    /// Trusts the built-in key pair.
    pub fn built_in(keys: &AuthKeys) -> Self {
        let key = DecodingKey::from_ed_der(keys.public_key());
        let trusted = TrustedKey { id: None, algorithm: Algorithm::EdDSA, key };
        Self::new(vec![trusted], ISSUER, AUDIENCE, None)
    }

    /// Trusts one public key in PEM: Ed25519 (`EdDSA`) or RSA (`RS256`, 2048 bits or more).
    ///
    /// # Errors
    /// If the text is neither.
    pub fn from_public_key(pem: &[u8], issuer: &str, audience: &str) -> Result<Self, AuthKeyError> {
        Ok(Self::new(vec![TrustedKey::of_pem(pem)?], issuer, audience, None))
    }

    /// Trusts the keys that an issuer publishes. [`refresh`](Self::refresh) fetches them first, and
    /// [`keep_fresh`](Self::keep_fresh) must run to fetch them again.
    ///
    /// # Errors
    /// If the HTTP client cannot be created.
    pub fn from_key_set(
        source: KeySetSource,
        issuer: &str,
        audience: &str,
        environment: Arc<dyn Environment>,
    ) -> Result<Self, AuthKeyError> {
        Ok(Self::new(Vec::new(), issuer, audience, Some(Issuer::new(source, environment)?)))
    }

    fn new(keys: Vec<TrustedKey>, issuer: &str, audience: &str, remote: Option<Issuer>) -> Self {
        let (issuer, audience) = (issuer.to_owned(), audience.to_owned());
        let trust = RwLock::new(Arc::new(Trust { keys, ..Trust::default() }));
        Self(Arc::new(Inner { issuer, audience, trust, remote }))
    }

    /// The caller of this token. Fetches the issuer's keys if the token names an unknown one.
    ///
    /// # Errors
    /// `unauthenticated` for an invalid token, with the reason; `unavailable` without valid keys of
    /// the issuer.
    pub async fn admit(&self, token: &str, now: Timestamp) -> Result<Admitted, Problem> {
        let checked = self.check(token, now);
        if matches!(checked, Err(Refusal::UnknownKey)) && self.found_keys().await {
            return self.authenticate(token, now);
        }
        Ok(checked?)
    }

    /// The caller of this token, checked with the keys known now.
    ///
    /// # Errors
    /// As [`admit`](Self::admit).
    pub fn authenticate(&self, token: &str, now: Timestamp) -> Result<Admitted, Problem> {
        Ok(self.check(token, now)?)
    }

    /// Whether tokens can be checked: there are keys, and they are not too old.
    pub fn has_keys(&self) -> bool {
        self.0.remote.as_ref().is_none_or(Issuer::is_fresh)
    }

    /// Fetches the issuer's keys, if there is an issuer. Returns whether there are valid keys now.
    pub async fn refresh(&self) -> bool {
        let Some(remote) = &self.0.remote else { return true };
        remote.fetch(|keys| self.replace(keys)).await
    }

    /// Fetches the issuer's keys regularly. Returns only if there is no issuer.
    pub async fn keep_fresh(&self) {
        let Some(remote) = &self.0.remote else { return };
        loop {
            remote.rest().await;
            self.refresh().await;
        }
    }

    /// Fetches new keys, unless that was done just now. Returns whether the token should be checked
    /// again.
    async fn found_keys(&self) -> bool {
        if !self.0.remote.as_ref().is_some_and(Issuer::may_be_asked) {
            return false;
        }
        // Runs in a task of its own. If this caller disconnects, the others still get the keys that
        // it fetches.
        let this = self.clone();
        let asking = tokio::spawn(async move {
            if let Some(remote) = &this.0.remote {
                remote.fetch_once(|keys| this.replace(keys)).await;
            }
        });
        asking.await.is_ok()
    }

    fn replace(&self, keys: Vec<TrustedKey>) {
        let trust = Arc::new(Trust { keys, ..Trust::default() });
        *self.0.trust.write().unwrap_or_else(PoisonError::into_inner) = trust;
    }

    fn check(&self, token: &str, now: Timestamp) -> Result<Admitted, Refusal> {
        if !self.has_keys() {
            let detail = "there are no keys to check tokens with";
            return Err(Problem::unavailable(detail).into());
        }
        let trust = Arc::clone(&self.0.trust.read().unwrap_or_else(PoisonError::into_inner));
        let known =
            trust.verified.read().unwrap_or_else(PoisonError::into_inner).get(token).cloned();
        let (verified, fresh) = match known {
            Some(verified) => (verified, false),
            None => (self.verify(&trust, token)?, true),
        };
        let now = now.timestamp();
        if now >= verified.expires {
            return Err(refused("the token has expired").into());
        }
        if now < verified.not_before {
            return Err(refused("the token is not valid yet").into());
        }
        let principal = verified.principal.clone();
        let until = Timestamp::from_timestamp(verified.expires, 0);
        if fresh {
            trust.remember(token, verified);
        }
        Ok(Admitted { principal, until: until.unwrap_or(Timestamp::MAX_UTC) })
    }

    /// Checks everything but the time, which [`check`](Self::check) checks each time.
    fn verify(&self, trust: &Trust, token: &str) -> Result<Verified, Refusal> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(refused("the token is too long").into());
        }
        let header = decode_header(token).map_err(|_| refused("the token is malformed"))?;
        if header.crit.is_some() {
            return Err(refused("the token has a critical extension that is not supported").into());
        }
        let key = trust.key(header.kid.as_deref(), header.alg).ok_or(Refusal::UnknownKey)?;
        let data = decode::<Claims>(token, &key.key, &self.validation(key.algorithm));
        let claims = data.map_err(|error| refused(explain(&error)))?.claims;
        if claims.sub.is_empty() {
            return Err(refused("the token has an empty subject").into());
        }
        Ok(Verified {
            principal: Principal::new(claims.iss, &claims.sub, claims.role),
            not_before: seconds(claims.nbf).saturating_sub(LEEWAY_SECONDS),
            expires: seconds(claims.exp).saturating_add(LEEWAY_SECONDS),
        })
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
        validation.set_issuer(&[&self.0.issuer]);
        validation.set_audience(&[&self.0.audience]);
        // `check` checks the time, with the clock that it is given.
        (validation.validate_exp, validation.validate_nbf) = (false, false);
        validation
    }
}

impl Trust {
    fn remember(&self, token: &str, verified: Verified) {
        let mut remembered = self.verified.write().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        remembered.insert(token.to_owned(), verified);
    }

    /// The key that the header names; if there is only one key, the header need not name it. A
    /// header with another algorithm than the key's finds no key.
    fn key(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&TrustedKey> {
        let alone = self.keys.len() == 1;
        let fits = |key: &&TrustedKey| {
            key.algorithm == algorithm
                && match (id, key.id.as_deref()) {
                    (Some(id), Some(own)) => id == own,
                    _ => alone,
                }
        };
        self.keys.iter().find(fits)
    }
}

fn refused(detail: &str) -> Problem {
    Problem::new(Kind::Unauthenticated, detail)
}

/// A `NumericDate`, which may have a fraction.
#[allow(clippy::cast_possible_truncation, reason = "a cast from a float saturates, as intended")]
fn seconds(date: f64) -> i64 {
    date.round() as i64
}

fn explain(error: &jsonwebtoken::errors::Error) -> &'static str {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::InvalidIssuer => "the token is from another issuer",
        ErrorKind::InvalidAudience => "the token is for another audience",
        ErrorKind::MissingRequiredClaim(_) => "the token lacks one of exp, nbf, iss, aud and sub",
        ErrorKind::InvalidSignature => "the token's signature is not valid",
        ErrorKind::Json(_) => "the token's claims are malformed, or its `role` is unknown",
        _ => "the token is not valid",
    }
}

#[cfg(test)]
mod tests;
