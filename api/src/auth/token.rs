//! Checks tokens: signature, issuer, audience, time, and the claims that say who calls.

use super::{AuthKeyError, AuthKeys, Principal, Role};
use crate::problem::{Kind, Problem};
use events::Timestamp;
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode, decode_header,
    jwk::{JwkSet, KeyAlgorithm},
};
use serde::Deserialize;
use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

/// The issuer of tokens, unless set otherwise.
pub const ISSUER: &str = "orderlog";
/// The audience of tokens, unless set otherwise.
pub const AUDIENCE: &str = "orderlog";

/// How far clocks may differ.
const LEEWAY_SECONDS: u64 = 30;
/// A longer token is not looked at.
const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// Tokens whose signature need not be checked again.
const REMEMBERED: usize = 10_000;

/// Checks tokens against the keys it trusts.
pub struct Authenticator {
    keys: RwLock<Vec<TrustedKey>>,
    issuer: String,
    audience: String,
    /// Tokens that were valid once: a signature costs more than all the rest of a small request.
    verified: RwLock<HashMap<String, Verified>>,
}

/// A public key, with the one algorithm it is for.
#[derive(Clone)]
struct TrustedKey {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

#[derive(Clone)]
struct Verified {
    principal: Principal,
    not_before: i64,
    expires: i64,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    role: Role,
    exp: f64,
    #[serde(default)]
    nbf: Option<f64>,
}

impl Authenticator {
    /// Trusts the built-in key pair.
    pub fn built_in(keys: &AuthKeys) -> Self {
        let key = DecodingKey::from_ed_der(keys.public_key());
        let trusted = TrustedKey { id: None, algorithm: Algorithm::EdDSA, key };
        Self::new(vec![trusted], ISSUER, AUDIENCE)
    }

    /// Trusts one public key in PEM: Ed25519 (`EdDSA`) or RSA (`RS256`).
    ///
    /// # Errors
    /// When the text is neither.
    pub fn from_public_key(pem: &[u8], issuer: &str, audience: &str) -> Result<Self, AuthKeyError> {
        let ed = DecodingKey::from_ed_pem(pem).map(|key| (Algorithm::EdDSA, key));
        let (algorithm, key) = ed
            .or_else(|_| DecodingKey::from_rsa_pem(pem).map(|key| (Algorithm::RS256, key)))
            .map_err(|_| AuthKeyError::Malformed("the public key (PEM, Ed25519 or RSA)".into()))?;
        Ok(Self::new(vec![TrustedKey { id: None, algorithm, key }], issuer, audience))
    }

    /// Trusts the Ed25519 and RSA keys of a key set (RFC 7517).
    ///
    /// # Errors
    /// When there is no such key in it.
    pub fn from_key_set(set: &JwkSet, issuer: &str, audience: &str) -> Result<Self, AuthKeyError> {
        Ok(Self::new(trusted(set)?, issuer, audience))
    }

    /// Trusts another key set from now on; the old keys count no more.
    ///
    /// # Errors
    /// When there is no usable key in it: then the old ones stay.
    pub fn replace_key_set(&self, set: &JwkSet) -> Result<(), AuthKeyError> {
        let keys = trusted(set)?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        self.verified.write().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }

    fn new(keys: Vec<TrustedKey>, issuer: &str, audience: &str) -> Self {
        let (issuer, audience) = (issuer.to_owned(), audience.to_owned());
        Self { keys: RwLock::new(keys), issuer, audience, verified: RwLock::default() }
    }

    /// Who calls with this token.
    ///
    /// # Errors
    /// `unauthenticated`, with what is wrong with it.
    pub fn authenticate(&self, token: &str, now: Timestamp) -> Result<Principal, Problem> {
        let known =
            self.verified.read().unwrap_or_else(PoisonError::into_inner).get(token).cloned();
        let (verified, fresh) = match known {
            Some(verified) => (verified, false),
            None => (self.verify(token)?, true),
        };
        let now = now.timestamp();
        if now >= verified.expires {
            return Err(refused("the token has expired"));
        }
        if now < verified.not_before {
            return Err(refused("the token is not valid yet"));
        }
        let principal = verified.principal.clone();
        if fresh {
            self.remember(token, verified);
        }
        Ok(principal)
    }

    fn remember(&self, token: &str, verified: Verified) {
        let mut remembered = self.verified.write().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        remembered.insert(token.to_owned(), verified);
    }

    /// Checks all but the time, which [`authenticate`](Self::authenticate) does each time.
    fn verify(&self, token: &str) -> Result<Verified, Problem> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(refused("the token is too long"));
        }
        let header = decode_header(token).map_err(|_| refused("the token does not read"))?;
        let key = self.key(header.kid.as_deref(), header.alg);
        let key = key.ok_or_else(|| refused("the token is signed with an unknown key"))?;
        let data = decode::<Claims>(token, &key.key, &self.validation(key.algorithm));
        let claims = data.map_err(|error| refused(explain(&error)))?.claims;
        if claims.sub.is_empty() {
            return Err(refused("the token has an empty subject"));
        }
        Ok(Verified {
            principal: Principal {
                issuer: claims.iss.into(),
                subject: claims.sub.into(),
                role: claims.role,
            },
            not_before: claims.nbf.map_or(i64::MIN, |nbf| seconds(nbf) - leeway()),
            expires: seconds(claims.exp).saturating_add(leeway()),
        })
    }

    /// The key that the header names. The algorithm is the key's: a header that claims another
    /// finds no key.
    fn key(&self, id: Option<&str>, algorithm: Algorithm) -> Option<TrustedKey> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let fits = |key: &&TrustedKey| {
            key.algorithm == algorithm
                && (id.is_none() || key.id.is_none() || key.id.as_deref() == id)
        };
        keys.iter().find(fits).cloned()
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY_SECONDS;
        validation
    }
}

fn trusted(set: &JwkSet) -> Result<Vec<TrustedKey>, AuthKeyError> {
    let usable = |jwk: &jsonwebtoken::jwk::Jwk| {
        let key = DecodingKey::from_jwk(jwk).ok()?;
        let algorithm = match (key.family(), jwk.common.key_algorithm) {
            (jsonwebtoken::AlgorithmFamily::Ed, None | Some(KeyAlgorithm::EdDSA)) => {
                Algorithm::EdDSA
            }
            (jsonwebtoken::AlgorithmFamily::Rsa, None | Some(KeyAlgorithm::RS256)) => {
                Algorithm::RS256
            }
            _ => return None,
        };
        Some(TrustedKey { id: jwk.common.key_id.clone(), algorithm, key })
    };
    let keys: Vec<_> = set.keys.iter().filter_map(usable).collect();
    if keys.is_empty() {
        return Err(AuthKeyError::Malformed("the key set (no EdDSA or RS256 key in it)".into()));
    }
    Ok(keys)
}

fn refused(detail: &str) -> Problem {
    Problem::new(Kind::Unauthenticated, detail)
}

fn leeway() -> i64 {
    i64::try_from(LEEWAY_SECONDS).unwrap_or(0)
}

/// A `NumericDate`, which may have a fraction.
#[allow(clippy::cast_possible_truncation, reason = "a cast from a float saturates, which is meant")]
fn seconds(date: f64) -> i64 {
    date.round() as i64
}

fn explain(error: &jsonwebtoken::errors::Error) -> &'static str {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::ExpiredSignature => "the token has expired",
        ErrorKind::ImmatureSignature => "the token is not valid yet",
        ErrorKind::InvalidIssuer => "the token is from another issuer",
        ErrorKind::InvalidAudience => "the token is for another audience",
        ErrorKind::MissingRequiredClaim(_) => "the token lacks one of exp, iss, aud and sub",
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
                "iss": ISSUER, "aud": AUDIENCE, "sub": "sam", "role": "staff", "exp": now + 600,
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
            let principal = fixture.authenticator.authenticate(&token, fixture.now).unwrap();
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

    const TOKEN_LIFETIME_AND_LEEWAY: chrono::TimeDelta =
        chrono::TimeDelta::seconds(24 * 3600 + LEEWAY_SECONDS.cast_signed());

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
