//! Checks tokens: signature, issuer, audience, time, and the claims that say who calls.

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

/// How far clocks may differ.
const LEEWAY_SECONDS: i64 = 30;
/// A longer token is not looked at.
const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// Tokens whose signature need not be checked again.
const REMEMBERED: usize = 10_000;

/// Checks tokens against the keys it trusts. Clones share them.
#[derive(Clone)]
pub struct Authenticator(Arc<Inner>);

struct Inner {
    issuer: String,
    audience: String,
    trust: RwLock<Arc<Trust>>,
    /// Where the keys come from, if they change.
    remote: Option<Issuer>,
}

/// Keys that are trusted together, and what was found valid with them: both go at once.
#[derive(Default)]
struct Trust {
    keys: Vec<TrustedKey>,
    /// Tokens that were valid once: a signature costs more than all the rest of a small request.
    verified: RwLock<HashMap<String, Verified>>,
}

#[derive(Clone)]
struct Verified {
    principal: Principal,
    not_before: i64,
    expires: i64,
}

/// Whom a token speaks for, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Who calls.
    pub principal: Principal,
    /// When the token expires, leeway included.
    pub until: Timestamp,
}

/// Why a token is not taken.
enum Refusal {
    /// It names a key that is not known, which may be a new one.
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
    /// When the text is neither.
    pub fn from_public_key(pem: &[u8], issuer: &str, audience: &str) -> Result<Self, AuthKeyError> {
        Ok(Self::new(vec![TrustedKey::of_pem(pem)?], issuer, audience, None))
    }

    /// Trusts the keys that an issuer publishes: none until [`refresh`](Self::refresh) has got
    /// them, and [`keep_fresh`](Self::keep_fresh) is to run beside.
    ///
    /// # Errors
    /// When there can be no HTTP client.
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

    /// Who calls with this token, after looking for new keys if it names one that is not known.
    ///
    /// # Errors
    /// `unauthenticated`, with what is wrong with it; `unavailable` while the issuer's keys cannot
    /// be had.
    pub async fn admit(&self, token: &str, now: Timestamp) -> Result<Admitted, Problem> {
        let checked = self.check(token, now);
        if matches!(checked, Err(Refusal::UnknownKey)) && self.found_keys().await {
            return self.authenticate(token, now);
        }
        Ok(checked?)
    }

    /// Who calls with this token, by the keys that are known.
    ///
    /// # Errors
    /// As [`admit`](Self::admit).
    pub fn authenticate(&self, token: &str, now: Timestamp) -> Result<Admitted, Problem> {
        Ok(self.check(token, now)?)
    }

    /// Whether tokens can be checked: the issuer's keys are there and not too old.
    pub fn has_keys(&self) -> bool {
        self.0.remote.as_ref().is_none_or(Issuer::is_fresh)
    }

    /// Fetches the issuer's keys, if they are an issuer's; whether they are there now.
    pub async fn refresh(&self) -> bool {
        let Some(remote) = &self.0.remote else { return true };
        remote.fetch(|keys| self.replace(keys)).await
    }

    /// Fetches the issuer's keys again and again; ends only if they never change.
    pub async fn keep_fresh(&self) {
        let Some(remote) = &self.0.remote else { return };
        loop {
            remote.rest().await;
            self.refresh().await;
        }
    }

    /// Looks for new keys, unless somebody did just now: whether it is worth another try.
    async fn found_keys(&self) -> bool {
        if !self.0.remote.as_ref().is_some_and(Issuer::may_be_asked) {
            return false;
        }
        // In a task of its own: a caller who goes away must not use up the others' chance.
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
            return Err(Problem::unavailable(
                "the keys that tokens are checked with cannot be had",
            )
            .into());
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

    /// Checks all but the time, which [`check`](Self::check) does each time.
    fn verify(&self, trust: &Trust, token: &str) -> Result<Verified, Refusal> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(refused("the token is too long").into());
        }
        let header = decode_header(token).map_err(|_| refused("the token does not read"))?;
        if header.crit.is_some() {
            return Err(refused("the token demands what is not understood here").into());
        }
        let key = trust.key(header.kid.as_deref(), header.alg).ok_or(Refusal::UnknownKey)?;
        let data = decode::<Claims>(token, &key.key, &self.validation(key.algorithm));
        let claims = data.map_err(|error| refused(explain(&error)))?.claims;
        if claims.sub.is_empty() {
            return Err(refused("the token has an empty subject").into());
        }
        Ok(Verified {
            principal: Principal {
                issuer: claims.iss.into(),
                subject: claims.sub.into(),
                role: claims.role,
            },
            not_before: seconds(claims.nbf).saturating_sub(LEEWAY_SECONDS),
            expires: seconds(claims.exp).saturating_add(LEEWAY_SECONDS),
        })
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
        validation.set_issuer(&[&self.0.issuer]);
        validation.set_audience(&[&self.0.audience]);
        // The time is `check`'s, which does not read a clock of its own.
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

    /// The key that the header names; the only one needs no name. The algorithm is the key's: a
    /// header that claims another finds no key.
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
#[allow(clippy::cast_possible_truncation, reason = "a cast from a float saturates, which is meant")]
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
        ErrorKind::Json(_) => "the token's claims do not read, or `role` is none that is known",
        _ => "the token is not valid",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::{Value, json};

    struct Fixture {
        dir: tempfile::TempDir,
        authenticator: Authenticator,
        keys: AuthKeys,
        now: Timestamp,
    }

    fn fixture() -> Fixture {
        use events::Environment;
        let dir = tempfile::tempdir().unwrap();
        let keys = AuthKeys::load_or_create(&dir.path().join("token.pk8")).unwrap();
        let now = events::environment::System::new().now();
        Fixture { dir, authenticator: Authenticator::built_in(&keys), keys, now }
    }

    impl Fixture {
        fn claims(&self, change: &Value) -> Value {
            let now = self.now.timestamp();
            let mut claims = json!({
                "iss": ISSUER, "aud": AUDIENCE, "sub": "sam", "role": "staff",
                "nbf": now, "exp": now + 600,
            });
            for (name, value) in change.as_object().unwrap() {
                match value {
                    Value::Null => claims.as_object_mut().unwrap().remove(name),
                    value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
                };
            }
            claims
        }

        fn signed(&self, change: &Value) -> String {
            let pkcs8 = std::fs::read(self.dir.path().join("token.pk8")).unwrap();
            let key = EncodingKey::from_ed_der(&pkcs8);
            encode(&Header::new(Algorithm::EdDSA), &self.claims(change), &key).unwrap()
        }

        fn refuses(&self, token: &str) {
            let problem = self.authenticator.authenticate(token, self.now).unwrap_err();
            assert_eq!(problem.kind(), Kind::Unauthenticated);
        }
    }

    #[test]
    fn a_token_of_ours_says_who_calls() {
        let fixture = fixture();
        let token = fixture.keys.sign(Role::Admin, "amy", fixture.now).unwrap();
        for _ in 0..2 {
            let admitted = fixture.authenticator.authenticate(&token, fixture.now).unwrap();
            assert_eq!(admitted.until, truncated(fixture.now) + TOKEN_LIFETIME_AND_LEEWAY);
            let principal = admitted.principal;
            assert_eq!((&*principal.subject, principal.role), ("amy", Role::Admin));
        }
    }

    #[test]
    fn a_remembered_token_still_expires() {
        let fixture = fixture();
        let token = fixture.keys.sign(Role::Staff, "sam", fixture.now).unwrap();
        fixture.authenticator.authenticate(&token, fixture.now).unwrap();
        let later = fixture.now + TOKEN_LIFETIME_AND_LEEWAY;
        assert!(fixture.authenticator.authenticate(&token, later).is_err());
    }

    fn truncated(time: Timestamp) -> Timestamp {
        Timestamp::from_timestamp(time.timestamp(), 0).unwrap()
    }

    const TOKEN_LIFETIME_AND_LEEWAY: chrono::TimeDelta =
        chrono::TimeDelta::seconds(24 * 3600 + LEEWAY_SECONDS);

    #[test]
    fn wrong_claims_are_refused() {
        let fixture = fixture();
        let now = fixture.now.timestamp();
        assert!(
            fixture.authenticator.authenticate(&fixture.signed(&json!({})), fixture.now).is_ok()
        );
        for change in [
            json!({ "exp": now - 60 }),
            json!({ "nbf": now + 60 }),
            json!({ "iss": "someone" }),
            json!({ "aud": "another" }),
            json!({ "exp": null }),
            json!({ "nbf": null }),
            json!({ "iss": null }),
            json!({ "aud": null }),
            json!({ "sub": null }),
            json!({ "sub": "" }),
            json!({ "role": null }),
            json!({ "role": "root" }),
        ] {
            fixture.refuses(&fixture.signed(&change));
        }
    }

    #[test]
    fn a_forged_token_is_refused() {
        let fixture = fixture();
        let token = fixture.signed(&json!({}));
        let (head, signature) = token.rsplit_once('.').unwrap();
        let payload =
            URL_SAFE_NO_PAD.encode(fixture.claims(&json!({ "role": "admin" })).to_string());
        let header = head.split_once('.').unwrap().0;
        fixture.refuses(&format!("{header}.{payload}.{signature}"));
        for algorithm in ["none", "None", "EdDSA"] {
            let header =
                URL_SAFE_NO_PAD.encode(json!({ "typ": "JWT", "alg": algorithm }).to_string());
            fixture.refuses(&format!("{header}.{payload}."));
        }
        fixture.refuses("");
        fixture.refuses("a.b.c");
        fixture.refuses(&"a".repeat(MAX_TOKEN_BYTES + 1));
    }

    #[test]
    fn another_algorithm_finds_no_key() {
        // The public key as the secret of an HMAC: works where the header chooses the algorithm.
        let fixture = fixture();
        let secret = EncodingKey::from_secret(fixture.keys.public_key());
        let token =
            encode(&Header::new(Algorithm::HS256), &fixture.claims(&json!({})), &secret).unwrap();
        fixture.refuses(&token);
    }

    #[test]
    fn another_key_pair_is_not_trusted() {
        let (ours, other) = (fixture(), fixture());
        ours.refuses(&other.signed(&json!({})));
    }
}
