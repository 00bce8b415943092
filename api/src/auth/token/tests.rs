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
fn a_built_in_token_names_its_caller() {
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
    assert!(fixture.authenticator.authenticate(&fixture.signed(&json!({})), fixture.now).is_ok());
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
    let payload = URL_SAFE_NO_PAD.encode(fixture.claims(&json!({ "role": "admin" })).to_string());
    let header = head.split_once('.').unwrap().0;
    fixture.refuses(&format!("{header}.{payload}.{signature}"));
    for algorithm in ["none", "None", "EdDSA"] {
        let header = URL_SAFE_NO_PAD.encode(json!({ "typ": "JWT", "alg": algorithm }).to_string());
        fixture.refuses(&format!("{header}.{payload}."));
    }
    fixture.refuses("");
    fixture.refuses("a.b.c");
    fixture.refuses(&"a".repeat(MAX_TOKEN_BYTES + 1));
}

#[test]
fn another_algorithm_finds_no_key() {
    // The public key as the secret of an HMAC, which works if the header chooses the algorithm.
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
