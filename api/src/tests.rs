//! Tests of the interface over a write side with a log in memory: all that need no database.

use crate::{
    App, AppParts, AppSettings,
    auth::{AuthKeys, Authenticator, Role},
    problem::Kind,
    router::routes,
};
use axum::{
    Router,
    body::Body,
    http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header},
};
use commands::{
    Outside, ShopRules, WriteSettings, WriteSide, gateway::SandboxGateway, mail::NoMailer,
};
use events::{
    Environment,
    environment::System,
    keys::{FileKeyStore, KeyStore},
    log::{EventLog, memory::MemoryLog},
};
use http_body_util::BodyExt;
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use std::sync::Arc;
use tower::ServiceExt;
use uuid::Uuid;

/// The interface, with the keys that sign its tokens.
struct Shop {
    app: Arc<App>,
    router: Router,
    keys: AuthKeys,
    environment: Arc<dyn Environment>,
    side: WriteSide,
    _dir: tempfile::TempDir,
}

/// An answer.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Shop {
    async fn open() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut AppSettings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let environment: Arc<dyn Environment> = Arc::new(System::new());
        let log: Arc<dyn EventLog> = Arc::new(MemoryLog::new(4, Arc::clone(&environment)));
        let gateway = Arc::new(SandboxGateway::in_memory(Arc::clone(&environment)));
        let settings =
            WriteSettings::new(environment.uuid(), ShopRules::new("GBP".parse().unwrap()));
        let store: Arc<dyn KeyStore> =
            Arc::new(FileKeyStore::open(&dir.path().join("keys.sqlite")).unwrap());
        let outside = Outside { gateway, keys: Arc::clone(&store), mailer: Arc::new(NoMailer) };
        let side = WriteSide::start(&log, &environment, outside, &settings);
        side.ready().await;
        let keys = AuthKeys::load_or_create(&dir.path().join("token.pk8")).unwrap();
        let mut settings = AppSettings::new("GBP".parse().unwrap());
        change(&mut settings);
        let app = App::open(AppParts {
            settings,
            router: Some(side.router.clone()),
            reads: None,
            log,
            keys: store,
            environment: Arc::clone(&environment),
            authenticator: Authenticator::built_in(&keys),
            metrics: PrometheusBuilder::new().build_recorder().handle(),
            webhook: None,
        });
        let app = Arc::new(app.await.unwrap());
        let router = routes(Arc::clone(&app));
        Self { app, router, keys, environment, side, _dir: dir }
    }

    fn token(&self, role: Role, subject: &str) -> String {
        let token = self.keys.sign(role, subject, self.environment.now()).unwrap();
        format!("Bearer {token}")
    }

    fn staff(&self) -> String {
        self.token(Role::Staff, "sam")
    }

    async fn call(&self, mut request: Request<Body>) -> Answer {
        let host = HeaderValue::from_static("shop.example");
        request.headers_mut().entry(header::HOST).or_insert(host);
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| text());
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// Sends JSON. A header is `name: value`.
    async fn send(&self, line: &str, token: &str, headers: &[&str], body: &Value) -> Answer {
        self.send_text(line, token, headers, body.to_string()).await
    }

    async fn send_text(&self, line: &str, token: &str, headers: &[&str], body: String) -> Answer {
        let (method, path) = line.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header("Authorization", token);
        }
        if !headers.iter().any(|header| header.starts_with("Content-Type")) {
            request = request.header("Content-Type", "application/json");
        }
        for header in headers {
            let (name, value) = header.split_once(": ").unwrap();
            request = request.header(name, value);
        }
        self.call(request.body(Body::from(body)).unwrap()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.call(Request::builder().uri(path).body(Body::empty()).unwrap()).await
    }

    async fn customer(&self, email: &str) -> Uuid {
        let body = json!({ "email": email, "first_name": "Ann", "last_name": "Lee" });
        let answer = self.send("POST /api/v1/customers", "", &[], &body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        answer.id("customer_id")
    }

    async fn product(&self, price: i64, stock: i64) -> Uuid {
        let price = json!({ "amount": price, "currency": "GBP" });
        let body = json!({ "name": "Book", "price": price, "initial_stock": stock });
        let answer = self.send("POST /api/v1/products", &self.staff(), &[], &body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        answer.id("product_id")
    }

    async fn order(&self, headers: &[&str], order: &Value) -> Answer {
        self.send("POST /api/v1/orders", &self.staff(), headers, order).await
    }
}

fn order(customer: Uuid, product: Uuid, quantity: i64) -> Value {
    json!({
        "customer_id": customer,
        "items": [{ "product_id": product, "quantity": quantity }],
        "payment_method": "pm_card_visa",
        "shipping_address": "1 Mill Lane, York",
    })
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn id(&self, name: &str) -> Uuid {
        self.body[name].as_str().unwrap().parse().unwrap()
    }

    #[track_caller]
    fn is(&self, kind: Kind) -> &Self {
        assert_eq!(self.body["type"], format!("/problems/{}", kind.name()), "{self:?}");
        assert_eq!(self.status, kind.status());
        assert_eq!(self.body["status"], kind.status().as_u16());
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert!(self.body["instance"].as_str().unwrap().starts_with('/'));
        self
    }
}

#[tokio::test]
async fn an_order_is_placed_paid_and_shown() {
    let shop = Shop::open().await;
    let (ann, book) = (shop.customer("ann@example.org").await, shop.product(12_000, 5).await);
    let placed = shop.order(&[], &order(ann, book, 1)).await;
    assert_eq!(placed.status, StatusCode::CREATED, "{placed:?}");
    assert_eq!(placed.body["status"], "confirmed");
    assert_eq!(placed.body["subtotal"], json!({ "amount": 12_000, "currency": "GBP" }));
    // 5 % above 100.00, and 10.00 off the first order.
    let kinds: Vec<_> =
        placed.body["discounts"].as_array().unwrap().iter().map(|it| &it["kind"]).collect();
    assert_eq!(kinds, ["volume", "first_order"]);
    assert_eq!(placed.body["total"]["amount"], 10_400);
    let id = placed.id("order_id");
    assert_eq!(placed.header("location"), format!("/api/v1/orders/{id}"));
    assert_eq!(placed.header("etag"), format!("\"{}\"", placed.body["version"]));
    let token: events::LogPosition = placed.header("log-position").parse().unwrap();
    assert!(!token.is_empty());

    let path = format!("PATCH /api/v1/orders/{id}/status");
    let shipped = shop.send(&path, &shop.staff(), &[], &json!({ "status": "shipped" })).await;
    assert_eq!((shipped.status, &shipped.body["status"]), (StatusCode::OK, &json!("shipped")));
    let path = format!("POST /api/v1/orders/{id}/cancel");
    let late = shop.send(&path, &shop.staff(), &[], &json!({})).await;
    assert_eq!(late.is(Kind::IllegalTransition).body["from"], "shipped");
}

#[tokio::test]
async fn a_rejected_order_says_why_and_where_it_is() {
    let shop = Shop::open().await;
    let (ann, book) = (shop.customer("ann@example.org").await, shop.product(1_000, 5).await);
    let short = shop.order(&[], &order(ann, book, 6)).await;
    short.is(Kind::InsufficientStock);
    assert_eq!((&short.body["available"], &short.body["requested"]), (&json!(5), &json!(6)));
    assert_eq!(short.id("product_id"), book);
    assert_eq!(short.header("location"), format!("/api/v1/orders/{}", short.id("order_id")));
    assert!(!short.header("log-position").is_empty());

    let mut declined = order(ann, book, 1);
    declined["payment_method"] = json!("pm_card_declined");
    let declined = shop.order(&[], &declined).await;
    declined.is(Kind::PaymentDeclined).id("order_id");

    let unknown = shop.order(&[], &order(ann, Uuid::from_u128(9), 1)).await;
    assert_eq!(unknown.is(Kind::ProductNotFound).body["order_id"], Value::Null);
    shop.order(&[], &order(Uuid::from_u128(9), book, 1)).await.is(Kind::CustomerNotFound);
}

#[tokio::test]
async fn a_cancelled_order_gives_the_money_back() {
    let shop = Shop::open().await;
    let (ann, book) = (shop.customer("ann@example.org").await, shop.product(1_000, 5).await);
    let id = shop.order(&[], &order(ann, book, 1)).await.id("order_id");
    let (path, prefer) = (format!("POST /api/v1/orders/{id}/cancel"), ["Prefer: wait=30"]);
    let reason = json!({ "reason": "too late" });
    let cancelled = shop.send(&path, &shop.staff(), &prefer, &reason).await;
    assert_eq!(cancelled.status, StatusCode::OK, "{cancelled:?}");
    assert_eq!(cancelled.body["status"], "cancelled");
    assert_eq!(
        (&cancelled.body["reason"], &cancelled.body["refund"]),
        (&json!("too late"), &json!("done"))
    );
    assert_eq!(cancelled.header("preference-applied"), "wait=30");
}

#[tokio::test]
async fn an_order_can_be_decided_later() {
    let shop = Shop::open().await;
    let (ann, book) = (shop.customer("ann@example.org").await, shop.product(1_000, 5).await);
    let mut slow = order(ann, book, 1);
    slow["payment_method"] = json!("pm_card_slow");
    let accepted = shop.order(&["Prefer: respond-async"], &slow).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED);
    assert_eq!(accepted.body["status"], "pending");
    assert_eq!(accepted.header("preference-applied"), "respond-async");
    assert!(accepted.header("location").ends_with(&accepted.id("order_id").to_string()));
}

#[tokio::test]
async fn an_address_belongs_to_one_customer() {
    let shop = Shop::open().await;
    let ann = shop.customer("ann@example.org").await;
    let body = json!({ "email": "ANN@Example.org", "first_name": "Bob", "last_name": "Roe" });
    shop.send("POST /api/v1/customers", "", &[], &body).await.is(Kind::EmailTaken);
    let bob = shop.customer("bob@example.org").await;
    let path = format!("PATCH /api/v1/customers/{bob}");
    let taken = json!({ "email": "ann@example.org", "first_name": "Robert" });
    let bobs = shop.token(Role::Customer, &bob.to_string());
    shop.send(&path, &bobs, &[], &taken).await.is(Kind::EmailTaken);
    let changed = shop.send(&path, &bobs, &[], &json!({ "email": "rob@example.org" })).await;
    assert_eq!(changed.status, StatusCode::OK, "{changed:?}");
    assert_eq!(changed.body["email"], "rob@example.org");
    assert_eq!(changed.body["first_name"], "Ann", "a refused change changes nothing of it");
    assert_ne!(ann, bob);
}

#[tokio::test]
async fn the_same_key_is_the_same_command() {
    let shop = Shop::open().await;
    let price = json!({ "amount": 100, "currency": "GBP" });
    let body = json!({ "name": "Book", "price": price });
    let add = |key: &'static str, body: Value| {
        let shop = &shop;
        async move { shop.send("POST /api/v1/products", &shop.staff(), &[key], &body).await }
    };
    let first = add("Idempotency-Key: k", body.clone()).await;
    assert_eq!(first.header("idempotency-replayed"), "");
    let again = add("Idempotency-Key: \"k\"", body.clone()).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (StatusCode::CREATED, "true"));
    assert_eq!(again.body, first.body);
    for header in ["location", "etag", "log-position"] {
        assert_eq!(again.header(header), first.header(header));
    }
    let mut other = body.clone();
    other["name"] = json!("Another");
    add("Idempotency-Key: k", other).await.is(Kind::IdempotencyKeyReused);
    assert_ne!(add("Idempotency-Key: l", body).await.body["product_id"], first.body["product_id"]);
}

#[tokio::test]
async fn a_stale_version_is_refused() {
    let shop = Shop::open().await;
    let book = shop.product(100, 1).await;
    let path = format!("PATCH /api/v1/products/{book}");
    let rename = |tag: &'static str, name: &'static str| {
        let (shop, path) = (&shop, &path);
        async move { shop.send(path, &shop.staff(), &[tag], &json!({ "name": name })).await }
    };
    let renamed = rename("If-Match: \"1\"", "One").await;
    assert_eq!((renamed.status, renamed.header("etag")), (StatusCode::OK, "\"2\""));
    let stale = rename("If-Match: \"1\"", "Two").await;
    assert_eq!(stale.is(Kind::VersionMismatch).body["current_version"], 2);
    let same = rename("If-Match: \"2\"", "One").await;
    assert_eq!((same.status, same.header("etag")), (StatusCode::OK, "\"2\""));
    rename("If-Match: 2", "Two").await.is(Kind::InvalidParameter);
}

#[tokio::test]
async fn stock_does_not_fall_below_what_is_reserved() {
    let shop = Shop::open().await;
    let (ann, book) = (shop.customer("ann@example.org").await, shop.product(100, 5).await);
    shop.order(&[], &order(ann, book, 4)).await;
    let path = format!("POST /api/v1/products/{book}/stock");
    let correct = |quantity: i64| {
        let (shop, path) = (&shop, &path);
        let body = json!({ "quantity": quantity, "reason": "correction" });
        async move { shop.send(path, &shop.staff(), &[], &body).await }
    };
    correct(-2).await.is(Kind::StockBelowReserved);
    let corrected = correct(-1).await.body;
    assert_eq!((&corrected["on_hand"], &corrected["available"]), (&json!(4), &json!(0)));
}

#[tokio::test]
async fn bad_input_is_the_documented_problem() {
    let shop = Shop::open().await;
    let (ann, book) = (shop.customer("ann@example.org").await, shop.product(100, 5).await);
    let good = order(ann, book, 1);
    let with = |pointer: &str, value: Value| {
        let mut order = good.clone();
        *order.pointer_mut(pointer).unwrap() = value;
        order.to_string()
    };
    let mut unknown = good.clone();
    unknown["colour"] = json!("red");
    let items = vec![json!({ "product_id": book, "quantity": 1 }); 101];
    let table = [
        ("{".to_owned(), Kind::InvalidBody, ""),
        ("[1]".to_owned(), Kind::InvalidBody, ""),
        (unknown.to_string(), Kind::InvalidBody, "/colour"),
        (with("/items", json!("all")), Kind::InvalidBody, "/items"),
        (with("/items/0/quantity", json!("1")), Kind::InvalidBody, "/items/0/quantity"),
        (with("/items/0/quantity", json!(0)), Kind::ValidationFailed, "/items/0/quantity"),
        (with("/items/0/quantity", json!(-1)), Kind::ValidationFailed, "/items/0/quantity"),
        (
            with("/items/0/quantity", json!(1_i64 << 40)),
            Kind::ValidationFailed,
            "/items/0/quantity",
        ),
        (with("/items", Value::Array(items)), Kind::ValidationFailed, "/items"),
        (with("/items", json!([])), Kind::ValidationFailed, "/items"),
        (with("/payment_method", json!("a\0b")), Kind::ValidationFailed, "/payment_method"),
    ];
    for (body, kind, pointer) in table {
        let answer = shop.send_text("POST /api/v1/orders", &shop.staff(), &[], body).await;
        assert_eq!(answer.is(kind).body["errors"][0]["pointer"], pointer, "{answer:?}");
    }
    let huge = with("/payment_method", json!("x".repeat(1 << 20)));
    let post = "POST /api/v1/orders";
    shop.send_text(post, &shop.staff(), &[], huge).await.is(Kind::BodyTooLarge);
    let plain = ["Content-Type: text/plain"];
    shop.send(post, &shop.staff(), &plain, &good).await.is(Kind::UnsupportedMediaType);
    let long = format!("Idempotency-Key: {}", "k".repeat(256));
    shop.send(post, &shop.staff(), &[&long], &good).await.is(Kind::InvalidParameter);
    let path = "PATCH /api/v1/orders/not-a-uuid/status";
    shop.send(path, &shop.staff(), &[], &json!({ "status": "shipped" })).await.is(Kind::NotFound);
    let path = format!("PATCH /api/v1/orders/{}/status", Uuid::from_u128(9));
    shop.send(&path, &shop.staff(), &[], &json!({ "status": "shipped" })).await.is(Kind::NotFound);
    shop.send(&path, &shop.staff(), &[], &json!({ "status": "lost" }))
        .await
        .is(Kind::ValidationFailed);
    let price = json!({ "amount": 1, "currency": "EUR" });
    let euro = json!({ "name": "Book", "price": price });
    shop.send("POST /api/v1/products", &shop.staff(), &[], &euro).await.is(Kind::ValidationFailed);
    let stock = shop.order(&[], &order(ann, book, 5)).await;
    assert_eq!(stock.status, StatusCode::CREATED, "no refused order reserved stock");
}

#[tokio::test]
async fn callers_may_access_their_own_resources_only() {
    let shop = Shop::open().await;
    let (ann, book) = (shop.customer("ann@example.org").await, shop.product(100, 5).await);
    let (anns, bobs) = (
        shop.token(Role::Customer, &ann.to_string()),
        shop.token(Role::Customer, &Uuid::from_u128(9).to_string()),
    );
    let post = "POST /api/v1/orders";
    let good = order(ann, book, 1);
    shop.send(post, "", &[], &good).await.is(Kind::Unauthenticated);
    shop.send(post, "Bearer a.b.c", &[], &good).await.is(Kind::Unauthenticated);
    shop.send(post, "Basic abc", &[], &good).await.is(Kind::Unauthenticated);
    shop.send(post, &bobs, &[], &good).await.is(Kind::Forbidden);
    let placed = shop.send(post, &anns, &[], &good).await;
    assert_eq!(placed.status, StatusCode::CREATED);
    let cancel = format!("POST /api/v1/orders/{}/cancel", placed.id("order_id"));
    shop.send(&cancel, &bobs, &[], &json!({})).await.is(Kind::NotFound);
    assert_eq!(shop.send(&cancel, &anns, &[], &json!({})).await.status, StatusCode::OK);
    // The role is checked before the body.
    shop.send("POST /api/v1/products", &anns, &[], &json!({})).await.is(Kind::Forbidden);
    let path = format!("PATCH /api/v1/customers/{ann}");
    shop.send(&path, &anns, &[], &json!({ "vip": true })).await.is(Kind::Forbidden);
    shop.send(&path, &bobs, &[], &json!({})).await.is(Kind::Forbidden);
    let vip = shop.send(&path, &shop.staff(), &[], &json!({ "vip": true })).await;
    assert_eq!(vip.body["vip"], true);
    let admin = "POST /api/v1/admin/projections/orders/rebuild";
    shop.send(admin, &shop.staff(), &[], &json!({})).await.is(Kind::Forbidden);
}

#[tokio::test]
async fn what_axum_refuses_is_a_problem_too() {
    let shop = Shop::open().await;
    shop.get("/api/v1/nothing").await.is(Kind::NotFound);
    shop.get("/favicon.ico").await.is(Kind::NotFound);
    let wrong = shop.send("DELETE /api/v1/orders", "", &[], &json!({})).await;
    assert!(wrong.is(Kind::MethodNotAllowed).header("allow").contains("POST"));
    let no_reads = shop.get("/api/v1/products").await;
    assert_eq!(no_reads.is(Kind::Unavailable).header("retry-after"), "1");
    shop.get("/api/v1/products?colour=red").await.is(Kind::InvalidParameter);
    assert_eq!(
        shop.get("/api/v1/orders").await.is(Kind::Unauthenticated).header("www-authenticate"),
        "Bearer"
    );
}

#[tokio::test]
async fn every_problem_has_its_page_and_the_docs_need_no_other_host() {
    let shop = Shop::open().await;
    for kind in Kind::ALL {
        let page = shop.get(&format!("/problems/{}", kind.name())).await;
        assert_eq!(page.status, StatusCode::OK);
        assert!(page.header("content-type").starts_with("text/html"));
    }
    shop.get("/problems/none").await.is(Kind::NotFound);
    let docs = shop.get("/docs/").await;
    assert_eq!(docs.status, StatusCode::OK);
    let html = docs.body.as_str().unwrap();
    for attribute in ["src=\"http", "href=\"http", "src=\"//", "href=\"//"] {
        assert!(!html.contains(attribute), "{html}");
    }
    assert!(!html.contains("<script>"), "the content security policy allows no inline script");
    assert_eq!(shop.get("/openapi.json").await.body["openapi"], "3.1.0");
    assert_eq!(shop.get("/healthz").await.status, StatusCode::OK);
    shop.get("/readyz").await.is(Kind::Unavailable);
    shop.app.readiness.refresh(&shop.app).await;
    let ready = shop.get("/readyz").await;
    assert_eq!((ready.status, &ready.body["closed"]), (StatusCode::OK, &json!([])));
    assert_eq!(shop.get("/metrics").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_trace_is_followed_and_answers_are_protected() {
    let shop = Shop::open().await;
    let trace = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let answer = shop.send("POST /api/v1/orders", "", &[trace], &json!({})).await;
    let answered = answer.header("traceparent");
    assert!(answered.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{answered}");
    assert!(!answered.contains("00f067aa0ba902b7"));
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        (
            "content-security-policy",
            "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("strict-transport-security", ""),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    assert_eq!(answer.header("access-control-allow-origin"), "");
}

#[tokio::test]
async fn browsers_may_call_from_the_origins_named() {
    let origins = vec!["https://shop.example".to_owned()];
    let shop = Shop::with(|settings| settings.cors_allowed_origins = origins).await;
    let preflight = |origin: &'static str| {
        let request = Request::builder().method(Method::OPTIONS).uri("/api/v1/orders");
        let request = request.header("Origin", origin);
        request.header("Access-Control-Request-Method", "POST").body(Body::empty()).unwrap()
    };
    let allowed = shop.call(preflight("https://shop.example")).await;
    assert_eq!(allowed.header("access-control-allow-origin"), "https://shop.example");
    let other = shop.call(preflight("https://other.example")).await;
    assert_eq!(other.header("access-control-allow-origin"), "");
}

#[tokio::test]
async fn too_many_requests_are_refused() {
    let shop = Shop::with(|settings| settings.rate_limit_per_second = 1).await;
    let mut refused = 0;
    for _ in 0..5 {
        let answer = shop.send("POST /api/v1/orders", &shop.staff(), &[], &json!({})).await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            refused += 1;
            let wait: u64 = answer.is(Kind::RateLimited).header("retry-after").parse().unwrap();
            assert!((1..=2).contains(&wait));
        }
    }
    assert!(refused >= 2);
    shop.send("POST /api/v1/orders", "", &[], &json!({})).await.is(Kind::Unauthenticated);
}

/// A request from `peer`, as the server passes it on.
fn from(peer: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::builder().uri("/api/v1/orders");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Body::empty()).unwrap();
    let peer = std::net::SocketAddr::new(peer.parse().unwrap(), 4711);
    request.extensions_mut().insert(axum::extract::ConnectInfo(peer));
    request
}

#[tokio::test]
async fn an_address_is_limited_before_its_tokens_are_checked() {
    let shop = Shop::with(|settings| settings.rate_limit_per_address = 1).await;
    let kinds = async |peer: &str, token: &str| {
        let mut kinds = Vec::new();
        for _ in 0..4 {
            let answer = shop.call(from(peer, &[("authorization", token)])).await;
            kinds.push(answer.status.as_u16());
        }
        kinds
    };
    // The burst is two. A valid token does not get around the limit of the address.
    assert_eq!(kinds("203.0.113.1", "Bearer a.b.c").await, [401, 401, 429, 429]);
    assert_eq!(kinds("203.0.113.2", &shop.staff()).await, [503, 503, 429, 429]);
    assert_eq!(kinds("203.0.113.1", &shop.staff()).await, [429; 4]);
}

#[tokio::test]
async fn every_path_counts_and_answers_say_what_is_left() {
    let shop = Shop::with(|settings| {
        settings.rate_limit_per_address = 10;
        settings.rate_limit_per_second = 5;
    });
    let shop = shop.await;
    let get = async |last: u8, path: &str| {
        let mut request = from(&format!("203.0.113.{last}"), &[("authorization", &shop.staff())]);
        *request.uri_mut() = path.parse().unwrap();
        shop.call(request).await
    };
    let paths = ["/healthz", "/readyz", "/metrics", "/nope", "/docs/nope", "/openapi.json", "/"];
    for (path, last) in paths.into_iter().zip(10..) {
        let mut answered = 0;
        let refused = loop {
            let answer = get(last, path).await;
            assert_eq!(answer.header("ratelimit-policy"), "\"address\";q=20;w=2", "{path}");
            if answer.status == StatusCode::TOO_MANY_REQUESTS {
                break answer;
            }
            answered += 1;
            assert!(answered < 500, "{path} is not limited");
        };
        refused.is(Kind::RateLimited);
        assert!(["1", "2"].contains(&refused.header("retry-after")), "{path}: {refused:?}");
        assert!(answered >= if path == "/metrics" { 2 } else { 20 }, "{path}: {answered}");
    }
    let answer = get(1, "/api/v1/orders").await;
    assert_eq!(answer.header("ratelimit-policy"), "\"address\";q=20;w=2, \"caller\";q=10;w=2");
    assert_eq!(answer.header("ratelimit"), "\"address\";r=19;t=1, \"caller\";r=9;t=1");
    // A search takes a full bucket.
    get(1, "/api/v1/search?q=war").await;
    get(1, "/api/v1/search?q=war").await.is(Kind::RateLimited);
}

#[tokio::test]
async fn clients_behind_a_trusted_proxy_are_told_apart() {
    let shop = Shop::with(|settings| {
        settings.rate_limit_per_address = 1;
        settings.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
    });
    let shop = shop.await;
    let refused = async |peer: &str, forwarded: &'static [&str]| {
        let mut refused = 0;
        for client in forwarded {
            let answer = shop.call(from(peer, &[("x-forwarded-for", client)])).await;
            refused += usize::from(answer.status == StatusCode::TOO_MANY_REQUESTS);
        }
        refused
    };
    let clients = &["198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4"];
    assert_eq!(refused("10.0.0.1", clients).await, 0);
    assert_eq!(refused("203.0.113.1", clients).await, 2, "not a trusted proxy");
    let made_up = &["1.1.1.1, 198.51.100.9", "2.2.2.2, 198.51.100.9", "3.3.3.3, 198.51.100.9"];
    assert_eq!(refused("10.0.0.1", made_up).await, 1, "forged addresses do not count");
    let secure = [("x-forwarded-for", "198.51.100.7"), ("x-forwarded-proto", "https")];
    let answer = shop.call(from("10.0.0.1", &secure)).await;
    assert!(answer.header("strict-transport-security").starts_with("max-age="));
    let answer = shop.call(from("203.0.113.7", &secure)).await;
    assert_eq!(answer.header("strict-transport-security"), "");
}

#[tokio::test]
async fn a_stopped_write_side_answers_command_not_applied() {
    let shop = Shop::open().await;
    let router = shop.router.clone();
    let staff = shop.staff();
    let request = Request::builder()
        .method("POST")
        .uri("/api/v1/products")
        .header("Host", "shop.example")
        .header("Authorization", staff)
        .header("Content-Type", "application/json");
    let body = json!({ "name": "Book", "price": { "amount": 1, "currency": "GBP" } });
    let request = request.body(Body::from(body.to_string())).unwrap();
    shop.side.stop().await;
    let response = router.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let problem: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(problem["type"], "/problems/command-not-applied");
}

/// Whatever a request says, and however long it is, a refusal repeats only a little of it.
#[tokio::test]
async fn no_refusal_repeats_much_of_its_request() {
    let shop = Shop::open().await;
    let (staff, id) = (shop.staff(), Uuid::from_u128(1));
    for letter in ["a", "\u{1b}", "\"", "é", "💥"] {
        let long = letter.repeat(20_000 / letter.len());
        let query: String = form_urlencoded::byte_serialize(long.as_bytes()).collect();
        let line = |text: &str| text.replace("{}", &query);
        let mut answers = Vec::new();
        for path in [
            "/{}",
            "/problems/{}",
            "/api/v1/{}",
            "/api/v1/products/{}",
            "/api/v1/products?{}",
            "/api/v1/products?{}=1",
            "/api/v1/products?limit={}",
            "/api/v1/products?cursor={}",
            "/api/v1/search?q={}",
            "/api/v1/orders?placed_from={}",
            "/api/v1/admin/streams/{}",
        ] {
            answers.push(
                shop.send_text(&format!("GET {}", line(path)), &staff, &[], String::new()).await,
            );
        }
        let text = Value::from(long.as_str()).to_string();
        let bodies = [
            text.clone(),
            format!("{{{text}:1}}"),
            format!("{{\"name\":{text}}}"),
            format!("{{\"price\":{{{text}:1}}}}"),
            format!("{{\"price\":{{\"amount\":1,\"currency\":{text}}}}}"),
            format!("{{\"status\":{text}}}"),
            format!("{{\"reason\":{text}}}"),
        ];
        for body in bodies {
            for path in
                ["POST /api/v1/products".to_owned(), format!("PATCH /api/v1/orders/{id}/status")]
            {
                answers.push(shop.send_text(&path, &staff, &[], body.clone()).await);
            }
        }
        if !letter.starts_with('\u{1b}') {
            for name in ["Idempotency-Key", "If-Match", "Min-Log-Position", "Content-Type"] {
                let header = format!("{name}: {long}");
                answers
                    .push(shop.send("POST /api/v1/products", &staff, &[&header], &json!({})).await);
            }
            answers.push(shop.send("GET /api/v1/orders", &long, &[], &Value::Null).await);
        }
        for answer in answers {
            assert!(answer.status.is_client_error(), "{answer:?}");
            let repeated = answer.body.to_string().len();
            assert!(repeated < 8_000, "{repeated} bytes: {}", answer.body["type"]);
        }
    }
}
