//! Tests against an issuer on loopback.

use super::*;
use crate::{
    auth::{Admitted, Authenticator},
    problem::{Kind, Problem},
};
use axum::{Router, body::Body, extract::State, response::Response, routing::get};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use events::{Timestamp, environment::System};
use futures::{StreamExt, future::BoxFuture, future::join_all, stream};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use uuid::Uuid;

/// Longer than any test takes.
const PATIENCE: Duration = Duration::from_secs(30);
const STALE: Duration = Duration::from_hours(1);

/// The real environment with a monotonic clock that the test sets.
struct Clock(System, SyncMutex<Duration>);

impl Clock {
    fn pass(&self, time: Duration) {
        *self.1.lock().unwrap() += time;
    }
}

impl Environment for Clock {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn monotonic(&self) -> Duration {
        *self.1.lock().unwrap()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.0.sleep(duration)
    }

    fn uuid(&self) -> Uuid {
        self.0.uuid()
    }

    fn random(&self) -> u64 {
        self.0.random()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.0.spawn(task);
    }
}

/// What the issuer answers.
#[derive(Clone)]
enum Says {
    Keys(Vec<Value>),
    Status(u16),
    Body(&'static str),
    /// An endless body.
    Endless,
    /// No answer.
    Silence,
    Redirect(String),
}

struct Published {
    says: SyncMutex<Says>,
    asked: AtomicUsize,
}

async fn publish(State(published): State<Arc<Published>>) -> Response {
    published.asked.fetch_add(1, Ordering::SeqCst);
    let says = published.says.lock().unwrap().clone();
    match says {
        Says::Keys(keys) => Response::new(json!({ "keys": keys }).to_string().into()),
        Says::Status(status) => Response::builder().status(status).body(Body::empty()).unwrap(),
        Says::Body(text) => Response::new(text.into()),
        Says::Endless => {
            let pieces = stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 1024]));
            Response::new(Body::from_stream(pieces))
        }
        Says::Silence => std::future::pending().await,
        Says::Redirect(to) => {
            Response::builder().status(302).header("location", to).body(Body::empty()).unwrap()
        }
    }
}

/// A key pair and its name.
struct Pair {
    private: EncodingKey,
    public: Value,
    algorithm: Algorithm,
    id: Option<&'static str>,
}

impl Pair {
    fn ed(id: &'static str) -> Self {
        use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        let public = json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": id, "use": "sig" });
        let private = EncodingKey::from_ed_der(pkcs8.as_ref());
        Self { private, public, algorithm: Algorithm::EdDSA, id: Some(id) }
    }

    fn rsa(id: &'static str) -> Self {
        use aws_lc_rs::{encoding::AsDer, rsa, signature::KeyPair};
        let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
        let pkcs8: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let text = STANDARD.encode(pkcs8.as_ref());
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let n = part(pair.public_key().modulus().big_endian_without_leading_zero());
        let e = part(pair.public_key().exponent().big_endian_without_leading_zero());
        let public = json!({ "kty": "RSA", "n": n, "e": e, "kid": id, "alg": "RS256" });
        let private = EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
        Self { private, public, algorithm: Algorithm::RS256, id: Some(id) }
    }

    /// A token signed with this key, with changed claims.
    fn token_with(&self, change: &Value) -> String {
        let now = System::new().now().timestamp();
        let mut claims = json!({
            "iss": "https://issuer.example", "aud": ["orders", "other"], "sub": "sam",
            "role": "staff", "nbf": now, "exp": now + 600,
        });
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            }
        }
        let mut header = Header::new(self.algorithm);
        header.kid = self.id.map(str::to_owned);
        jsonwebtoken::encode(&header, &claims, &self.private).unwrap()
    }

    fn token(&self) -> String {
        self.token_with(&json!({}))
    }
}

struct Fixture {
    url: String,
    published: Arc<Published>,
    clock: Arc<Clock>,
    authenticator: Authenticator,
}

impl Fixture {
    async fn with(says: Says, refresh: Duration) -> Self {
        let asked = AtomicUsize::new(0);
        let published = Arc::new(Published { says: SyncMutex::new(says), asked });
        let router = Router::new().route("/keys", get(publish)).with_state(Arc::clone(&published));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let clock = Arc::new(Clock(System::new(), SyncMutex::new(Duration::from_mins(1))));
        let mut source = KeySetSource::try_new(&url, refresh, STALE).unwrap();
        source.within = Duration::from_millis(500);
        let environment: Arc<dyn Environment> = Arc::clone(&clock) as _;
        let authenticator =
            Authenticator::from_key_set(source, "https://issuer.example", "orders", environment)
                .unwrap();
        Self { url, published, clock, authenticator }
    }

    async fn of(pairs: &[&Pair]) -> Self {
        let fixture = Self::with(keys(pairs), PATIENCE).await;
        assert!(fixture.authenticator.refresh().await);
        fixture
    }

    fn say(&self, says: Says) {
        *self.published.says.lock().unwrap() = says;
    }

    fn asked(&self) -> usize {
        self.published.asked.load(Ordering::SeqCst)
    }

    async fn admit(&self, token: &str) -> Result<Admitted, Problem> {
        self.authenticator.admit(token, self.clock.now()).await
    }

    async fn refuses(&self, token: &str, kind: Kind) {
        let problem = self.admit(token).await.unwrap_err();
        assert_eq!(problem.kind(), kind, "{problem:?}");
    }
}

fn keys(pairs: &[&Pair]) -> Says {
    Says::Keys(pairs.iter().map(|pair| pair.public.clone()).collect())
}

#[test]
fn keys_are_fetched_over_https_or_loopback_only() {
    let taken = |url: &str| KeySetSource::try_new(url, PATIENCE, STALE).is_ok();
    for url in ["https://issuer.example/jwks", "http://127.0.0.1:1/k", "http://[::1]/k"] {
        assert!(taken(url), "{url}");
    }
    assert!(taken("http://localhost:99/keys"));
    for url in [
        "http://issuer.example/jwks",
        "http://localhost.issuer.example/",
        "file:///etc/keys",
        "https://me:secret@issuer.example/jwks",
        "issuer.example",
        "",
    ] {
        assert!(!taken(url), "{url}");
    }
}

#[tokio::test]
async fn tokens_of_both_kinds_of_keys_are_accepted() {
    let (ed, rsa) = (Pair::ed("ed"), Pair::rsa("rsa"));
    let fixture = Fixture::of(&[&ed, &rsa]).await;
    for pair in [&ed, &rsa] {
        assert_eq!(&*fixture.admit(&pair.token()).await.unwrap().principal.subject, "sam");
    }
    assert_eq!(fixture.asked(), 1);
}

#[tokio::test]
async fn wrong_claims_are_refused() {
    let rsa = Pair::rsa("rsa");
    let fixture = Fixture::of(&[&rsa]).await;
    let now = fixture.clock.now().timestamp();
    for change in [
        json!({ "exp": now - 60 }),
        json!({ "nbf": now + 60 }),
        json!({ "iss": "https://issuer.example.net" }),
        json!({ "aud": ["another"] }),
        json!({ "exp": null }),
        json!({ "nbf": null }),
        json!({ "iss": null }),
        json!({ "aud": null }),
        json!({ "sub": null }),
        json!({ "role": "root" }),
    ] {
        fixture.refuses(&rsa.token_with(&change), Kind::Unauthenticated).await;
    }
    // Within the leeway.
    fixture.admit(&rsa.token_with(&json!({ "nbf": now + 10 }))).await.unwrap();
    assert_eq!(fixture.asked(), 1, "the key was known");
}

#[tokio::test]
async fn the_algorithm_is_that_of_the_key_and_not_of_the_token() {
    let (ed, rsa) = (Pair::ed("ed"), Pair::rsa("rsa"));
    let fixture = Fixture::of(&[&ed, &rsa]).await;
    let modulus = URL_SAFE_NO_PAD.decode(rsa.public["n"].as_str().unwrap()).unwrap();
    let public = URL_SAFE_NO_PAD.decode(ed.public["x"].as_str().unwrap()).unwrap();
    for (secret, id) in [(modulus, "rsa"), (public, "ed")] {
        let forged = Pair {
            private: EncodingKey::from_secret(&secret),
            public: Value::Null,
            algorithm: Algorithm::HS256,
            id: Some(id),
        };
        fixture.refuses(&forged.token(), Kind::Unauthenticated).await;
    }
    // Another algorithm of the same family, and the right algorithm under another key's id.
    let renamed = Pair { id: Some("ed"), ..rsa };
    fixture.refuses(&renamed.token(), Kind::Unauthenticated).await;
    let stronger = Pair { algorithm: Algorithm::RS512, id: Some("rsa"), ..renamed };
    fixture.refuses(&stronger.token(), Kind::Unauthenticated).await;
    let token = ed.token();
    let mut parts = token.split('.');
    let (_, claims, signature) = (parts.next(), parts.next().unwrap(), parts.next().unwrap());
    for header in [
        json!({ "alg": "none", "kid": "ed" }),
        json!({ "alg": "EdDSA", "kid": "ed", "crit": ["b64"], "b64": false }),
    ] {
        let header = URL_SAFE_NO_PAD.encode(header.to_string());
        for signature in ["", signature] {
            let forged = format!("{header}.{claims}.{signature}");
            fixture.refuses(&forged, Kind::Unauthenticated).await;
        }
    }
}

#[tokio::test]
async fn a_token_must_name_its_key_if_there_are_several() {
    let (one, other) = (Pair::ed("one"), Pair::ed("other"));
    let fixture = Fixture::of(&[&one, &other]).await;
    let nameless = Pair { id: None, ..one };
    fixture.refuses(&nameless.token(), Kind::Unauthenticated).await;
    fixture.say(keys(&[&nameless]));
    fixture.authenticator.refresh().await;
    fixture.admit(&nameless.token()).await.unwrap();
}

#[tokio::test]
async fn a_new_key_is_fetched_at_once_and_an_old_one_is_valid_until_it_is_dropped() {
    let (old, new) = (Pair::ed("old"), Pair::rsa("new"));
    let fixture = Fixture::of(&[&old]).await;
    fixture.admit(&old.token()).await.unwrap();
    fixture.clock.pass(COOL_DOWN);
    fixture.say(keys(&[&old, &new]));
    // All requests with the new key wait for one fetch.
    let token = new.token();
    let admitted = join_all((0..50).map(|_| fixture.admit(&token))).await;
    assert!(admitted.iter().all(Result::is_ok));
    assert_eq!(fixture.asked(), 2);
    let remembered = old.token();
    fixture.admit(&remembered).await.unwrap();
    fixture.say(keys(&[&new]));
    fixture.authenticator.refresh().await;
    fixture.refuses(&remembered, Kind::Unauthenticated).await;
    fixture.admit(&new.token()).await.unwrap();
}

#[tokio::test]
async fn forged_key_ids_do_not_flood_the_issuer() {
    let known = Pair::ed("known");
    let fixture = Fixture::of(&[&known]).await;
    fixture.clock.pass(COOL_DOWN);
    let flood = async |_| {
        let forged = Pair::ed(Box::leak(Uuid::now_v7().to_string().into_boxed_str()));
        fixture.refuses(&forged.token(), Kind::Unauthenticated).await;
    };
    stream::iter(0..300).for_each_concurrent(30, flood).await;
    assert_eq!(fixture.asked(), 2, "once at the start, and once for all of them");
    fixture.admit(&known.token()).await.unwrap();
    fixture.clock.pass(COOL_DOWN);
    stream::iter(0..300).for_each_concurrent(30, flood).await;
    assert_eq!(fixture.asked(), 3);
}

#[tokio::test]
async fn keys_stay_valid_for_a_while_without_the_issuer() {
    let known = Pair::ed("known");
    let fixture = Fixture::of(&[&known]).await;
    let elsewhere = Fixture::of(&[&Pair::ed("elsewhere")]).await;
    let redirect = elsewhere.url.clone();
    for says in [
        Says::Status(500),
        Says::Status(404),
        Says::Body("<html>"),
        Says::Body(r#"{"keys":[]}"#),
        Says::Endless,
        Says::Silence,
        Says::Redirect(redirect),
    ] {
        fixture.say(says);
        assert!(fixture.authenticator.refresh().await, "the old ones still count");
        fixture.admit(&known.token()).await.unwrap();
    }
    assert_eq!(elsewhere.asked(), 1, "no redirect is followed");
    fixture.clock.pass(STALE);
    fixture.refuses(&known.token(), Kind::Unavailable).await;
    assert!(!fixture.authenticator.has_keys());
    fixture.say(keys(&[&known]));
    assert!(fixture.authenticator.refresh().await);
    fixture.admit(&known.token()).await.unwrap();
}

#[tokio::test]
async fn keys_that_cannot_be_fetched_at_the_start_are_fetched_later() {
    let known = Pair::ed("known");
    let fixture = Fixture::with(Says::Status(503), Duration::from_millis(20)).await;
    assert!(!fixture.authenticator.refresh().await);
    fixture.refuses(&known.token(), Kind::Unavailable).await;
    fixture.say(keys(&[&known]));
    let keeping = fixture.authenticator.keep_fresh();
    let admitted = async {
        while fixture.admit(&known.token()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let both = async {
        tokio::select! {
            () = keeping => panic!("it must not end"),
            () = admitted => {}
        }
    };
    tokio::time::timeout(PATIENCE, both).await.unwrap();
}

#[test]
fn the_log_does_not_show_what_a_url_hides() {
    for url in ["https://i.example/keys", "https://ann:secret@i.example/keys?key=secret"] {
        let told = without_secrets(&url.parse().unwrap());
        assert_eq!(told, "https://i.example/keys");
    }
}
