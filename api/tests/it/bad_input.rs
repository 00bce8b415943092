//! Bad requests get the documented problem and append nothing.

use crate::{
    app::TestApp,
    books::Books,
    client::{Answer, Api, order},
    on_both_logs,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{TimeDelta, Utc};
use orderlog::{
    auth::{AuthKeys, Role},
    startup::auth_key_path,
};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

on_both_logs!(
    bad_requests_are_told_what_is_wrong_and_change_nothing,
    tokens_that_do_not_count,
    keys_and_versions,
    a_cursor_counts_in_the_list_that_gave_it_out,
);

/// Checks a problem: status, name, and the members that every problem has.
fn assert_problem(what: &str, answer: &Answer, status: u16, name: &str) {
    assert_eq!((answer.status, answer.problem()), (status, name), "{what}: {:?}", answer.body);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{what}");
    assert_eq!(answer.body["status"], status, "{what}");
    for member in ["title", "detail"] {
        assert!(answer.body[member].is_string(), "{what}: no {member} in {:?}", answer.body);
    }
}

/// Whether `errors` points to `pointer`.
fn points_to(answer: &Answer, pointer: &str) -> bool {
    let errors = answer.body["errors"].as_array();
    errors.is_some_and(|errors| errors.iter().any(|error| error["pointer"] == pointer))
}

/// A bad body: what is wrong, the body, and the expected status, problem and pointer.
type BadBody = (&'static str, Value, u16, &'static str, &'static str);

fn bad_orders(customer: Uuid, product: Uuid) -> Vec<BadBody> {
    let good = order(customer, &[(product, 1)]);
    let with = |pointer: &str, value: Value| {
        let mut body = good.clone();
        *body.pointer_mut(pointer).unwrap() = value;
        body
    };
    let without = |name: &str| {
        let mut body = good.clone();
        body.as_object_mut().unwrap().remove(name);
        body
    };
    let quantity = "/items/0/quantity";
    let mut unknown = good.clone();
    unknown["colour"] = json!("red");
    let lines: Vec<(Uuid, i64)> = (0..101).map(|_| (Uuid::now_v7(), 1)).collect();
    vec![
        ("an unknown field", unknown, 400, "invalid-body", "/colour"),
        ("a missing field", without("items"), 400, "invalid-body", "/items"),
        ("a missing field", without("payment_method"), 400, "invalid-body", "/payment_method"),
        ("a text for a number", with(quantity, json!("1")), 400, "invalid-body", quantity),
        ("a fraction", with(quantity, json!(1.5)), 400, "invalid-body", quantity),
        (
            "a list for a text",
            with("/payment_method", json!([])),
            400,
            "invalid-body",
            "/payment_method",
        ),
        (
            "an id that is none",
            with("/customer_id", json!("me")),
            422,
            "validation-failed",
            "/customer_id",
        ),
        ("quantity 0", with(quantity, json!(0)), 422, "validation-failed", quantity),
        ("quantity -1", with(quantity, json!(-1)), 422, "validation-failed", quantity),
        ("quantity 2^40", with(quantity, json!(1_i64 << 40)), 422, "validation-failed", quantity),
        ("no lines", with("/items", json!([])), 422, "validation-failed", "/items"),
        ("101 lines", order(customer, &lines), 422, "validation-failed", "/items"),
        (
            "no method",
            with("/payment_method", json!("")),
            422,
            "validation-failed",
            "/payment_method",
        ),
        (
            "a NUL",
            with("/payment_method", json!("pm\0")),
            422,
            "validation-failed",
            "/payment_method",
        ),
    ]
}

fn bad_products() -> Vec<BadBody> {
    let with = |pointer: &str, value: Value| {
        let price = json!({"amount": 1, "currency": "GBP"});
        let mut body = json!({"name": "A", "price": price, "initial_stock": 1, "description": "d"});
        *body.pointer_mut(pointer).unwrap() = value;
        body
    };
    let long = "x".repeat(10_001);
    vec![
        ("no name", with("/name", json!("")), 422, "validation-failed", "/name"),
        ("a long name", with("/name", json!(&long[..201])), 422, "validation-failed", "/name"),
        (
            "a long text",
            with("/description", json!(long)),
            422,
            "validation-failed",
            "/description",
        ),
        (
            "a negative price",
            with("/price/amount", json!(-1)),
            422,
            "validation-failed",
            "/price/amount",
        ),
        (
            "a huge price",
            with("/price/amount", json!(1_000_000_000_001_i64)),
            422,
            "validation-failed",
            "/price/amount",
        ),
        (
            "another currency",
            with("/price/currency", json!("EUR")),
            422,
            "validation-failed",
            "/price/currency",
        ),
        (
            "negative stock",
            with("/initial_stock", json!(-1)),
            422,
            "validation-failed",
            "/initial_stock",
        ),
        ("a price in pounds", with("/price", json!(12.99)), 400, "invalid-body", "/price"),
    ]
}

async fn send_bodies(api: &Api, path: &str, bodies: Vec<BadBody>) {
    for (what, body, status, name, pointer) in bodies {
        let answer = api.post(path, &body).send().await;
        assert_problem(what, &answer, status, name);
        assert!(points_to(&answer, pointer), "{what}: {pointer}? {:?}", answer.body);
    }
}

/// Requests with other faults than wrong values.
async fn bad_shapes(staff: &Api, product: Uuid) {
    let json_type = "application/json";
    let post = |body: Vec<u8>| staff.call(Method::POST, "/orders").raw(json_type, body);
    assert_problem("malformed", &post(b"{\"a\":".to_vec()).send().await, 400, "invalid-body");
    assert_problem("nothing", &post(Vec::new()).send().await, 400, "invalid-body");
    assert_problem("not UTF-8", &post(b"\"\xff\"".to_vec()).send().await, 400, "invalid-body");
    let deep = "[".repeat(10_000).into_bytes();
    assert_problem("deep", &post(deep).send().await, 400, "invalid-body");
    let big = vec![b' '; 1 << 20];
    assert_problem("1 MiB", &post(big).send().await, 413, "body-too-large");
    let text = staff.call(Method::POST, "/orders").raw("text/plain", "{}");
    assert_problem("text", &text.send().await, 415, "unsupported-media-type");
    let put = staff.call(Method::PUT, "/orders").send().await;
    assert_problem("PUT", &put, 405, "method-not-allowed");
    assert_problem("no such path", &staff.get("/nowhere").send().await, 404, "not-found");
    for path in ["/orders/7", "/products/x", "/orders/7/history"] {
        assert_problem(path, &staff.get(path).send().await, 404, "not-found");
    }
    for path in [
        "/orders?colour=red",
        "/orders?limit=0",
        "/orders?limit=201",
        "/orders?cursor=abc",
        "/orders?status=lost",
        "/orders?placed_from=yesterday",
        "/products?limit=x",
    ] {
        assert_problem(path, &staff.get(path).send().await, 400, "invalid-parameter");
    }
    for query in ["/products?category=%FF", "/orders?%ff=1", "/products?q=%C3%28"] {
        assert_problem(query, &staff.get(query).send().await, 400, "invalid-parameter");
    }
    let shown = format!("/products/{product}");
    for amount in ["1.9999999999999999999", "1.0000000000000000001", "1e-1"] {
        let body = format!(r#"{{"name":"A","price":{{"amount":{amount},"currency":"GBP"}}}}"#);
        let rounded = staff.call(Method::POST, "/products").raw(json_type, body).send().await;
        assert_problem(amount, &rounded, 400, "invalid-body");
    }
    for tag in ["*", "\"1\""] {
        let name = json!({"name": "C"});
        let change = staff.patch(&shown, &name).header("if-none-match", tag).send().await;
        assert_problem("a condition for reads", &change, 400, "invalid-parameter");
    }
    let token = staff.get(&shown).header("min-log-position", "soon").send().await;
    assert_problem("a malformed token", &token, 400, "invalid-parameter");
    let beyond = staff.get(&shown).header("min-log-position", "4000000000:1").send().await;
    assert_problem("a partition that is not there", &beyond, 400, "invalid-parameter");
    let earlier =
        staff.anonymous().get(&format!("{shown}?as_of=2026-01-01T00:00:00Z")).send().await;
    assert_problem("the past of a product", &earlier, 401, "unauthenticated");
    let key = staff.post("/products", &json!({})).key("x".repeat(256)).send().await;
    assert_problem("a long key", &key, 400, "invalid-parameter");
}

/// Ids of resources that do not exist or belong to another customer.
async fn bad_ids(app: &TestApp, customer: Uuid, product: Uuid, placed: Uuid) {
    let staff = &app.staff;
    let nobody = Uuid::now_v7();
    let answer = staff.post("/orders", &order(nobody, &[(product, 1)])).send().await;
    assert_problem("an unknown customer", &answer, 404, "customer-not-found");
    let answer = staff.post("/orders", &order(customer, &[(nobody, 1)])).send().await;
    assert_problem("an unknown product", &answer, 404, "product-not-found");
    for path in ["orders", "products", "customers"] {
        let path = format!("/{path}/{nobody}");
        assert_problem(&path, &staff.get(&path).send().await, 404, "not-found");
    }
    let stock = json!({"quantity": 1, "reason": "received"});
    let answer = staff.post(&format!("/products/{nobody}/stock"), &stock).send().await;
    assert_problem("stock of nothing", &answer, 404, "not-found");
    let short = json!({"quantity": -1_000, "reason": "correction"});
    let answer = staff.post(&format!("/products/{product}/stock"), &short).send().await;
    assert_problem("more out than in", &answer, 409, "stock-below-reserved");

    let other = app.caller(Role::Customer, &nobody.to_string());
    let path = format!("/orders/{placed}");
    assert_problem("another's order", &other.get(&path).send().await, 404, "not-found");
    let cancel = other.post(&format!("{path}/cancel"), &json!({})).send().await;
    assert_problem("another's order", &cancel, 404, "not-found");
    let foreign = other.post("/orders", &order(customer, &[(product, 1)])).send().await;
    assert_problem("an order for another", &foreign, 403, "forbidden");
    let list = other.get(&format!("/orders?customer_id={customer}")).send().await;
    assert_problem("another's orders", &list, 403, "forbidden");
    let product = json!({"name": "A", "price": {"amount": 1, "currency": "GBP"}});
    let answer = other.post("/products", &product).send().await;
    assert_problem("a product of a customer's", &answer, 403, "forbidden");
    let answer = staff.get("/admin/projections").send().await;
    assert_problem("administration by staff", &answer, 403, "forbidden");
}

mod scenario {
    use super::*;

    pub async fn bad_requests_are_told_what_is_wrong_and_change_nothing(app: &TestApp) {
        let staff = &app.staff;
        let (customer, product) = (staff.customer().await, staff.product(1_000, 10).await);
        let good = order(customer, &[(product, 1)]);
        let placed = staff.post("/orders", &good).expect(201).await.id("order_id");
        app.settled().await;
        let before = app.events_in_log().await;

        send_bodies(staff, "/orders", bad_orders(customer, product)).await;
        send_bodies(staff, "/products", bad_products()).await;
        for email in ["", "me", "me@", "@example.org", "a b@example.org"] {
            let body = json!({"email": email, "first_name": "A", "last_name": "B"});
            let answer = staff.post("/customers", &body).send().await;
            assert_problem(email, &answer, 422, "validation-failed");
            assert!(points_to(&answer, "/email"), "{:?}", answer.body);
        }
        bad_shapes(staff, product).await;
        bad_ids(app, customer, product, placed).await;

        assert_eq!(app.events_in_log().await, before, "something was appended");
        staff.post("/orders", &good).expect(201).await;
    }

    pub async fn tokens_that_do_not_count(app: &TestApp) {
        let keys = AuthKeys::load_or_create(&auth_key_path(app.running().data_dir())).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let others = AuthKeys::load_or_create(&dir.path().join("auth.key")).unwrap();
        let good = keys.sign(Role::Admin, "operator", Utc::now()).unwrap();
        let [header, claims, signature]: [&str; 3] =
            good.split('.').collect::<Vec<_>>().try_into().unwrap();
        let unsigned = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
        let stronger = URL_SAFE_NO_PAD.encode(
            r#"{"iss":"orderlog","aud":"orderlog","sub":"x","role":"admin","exp":9999999999}"#,
        );
        let bad = [
            ("expired", keys.sign(Role::Admin, "x", Utc::now() - TimeDelta::hours(25)).unwrap()),
            ("signed by others", others.sign(Role::Admin, "x", Utc::now()).unwrap()),
            ("alg: none", format!("{unsigned}.{claims}.")),
            ("alg: none, signed", format!("{unsigned}.{claims}.{signature}")),
            ("other claims", format!("{header}.{stronger}.{signature}")),
            ("cut", format!("{header}.{claims}")),
            ("nonsense", "nonsense".to_owned()),
        ];
        for (what, token) in bad {
            let answer = app.staff.with_token(token).get("/admin/projections").send().await;
            assert_problem(what, &answer, 401, "unauthenticated");
            assert!(answer.header("www-authenticate").is_some(), "{what}");
        }
        let anonymous = app.staff.anonymous().get("/orders").send().await;
        assert_problem("no token", &anonymous, 401, "unauthenticated");
        app.staff.with_token(good).get("/admin/projections").expect(200).await;
    }

    /// A cursor of another list, and one with other content, is a bad parameter in every list: no
    /// client chooses where a statement begins, or what it costs.
    pub async fn a_cursor_counts_in_the_list_that_gave_it_out(app: &TestApp) {
        let staff = &app.staff;
        let (customer, other) = (staff.customer().await, staff.customer().await);
        let product = staff.product(1_000, 10).await;
        staff.product(1_000, 10).await;
        let body = order(customer, &[(product, 1)]);
        staff.post("/orders", &body).expect(201).await;
        let placed = staff.post("/orders", &body).expect(201).await.id("order_id");
        app.settled().await;
        app.caught_up().await;
        let admin = app.caller(Role::Admin, "operator");
        let lists = [
            "/products?".to_owned(),
            "/products?category=books&".to_owned(),
            "/search?q=book&".to_owned(),
            "/search?q=books&".to_owned(),
            "/orders?".to_owned(),
            format!("/orders?customer_id={customer}&"),
            format!("/customers/{customer}/orders?"),
            format!("/orders/{placed}/history?"),
            format!("/admin/streams/order-{placed}?"),
        ];
        let mut given = Vec::new();
        for list in &lists {
            let page = admin.get(&format!("{list}limit=1")).expect(200).await.body;
            let cursor = page["next_cursor"].as_str().expect("another page").to_owned();
            admin.get(&format!("{list}limit=1&cursor={cursor}")).expect(200).await;
            given.push(cursor);
        }
        let orders_of_other = format!("/customers/{other}/orders?");
        for list in lists.iter().chain([&orders_of_other]) {
            for (from, cursor) in lists.iter().zip(&given).filter(|(from, _)| *from != list) {
                let answer = admin.get(&format!("{list}cursor={cursor}")).send().await;
                assert_problem(&format!("{from} in {list}"), &answer, 400, "invalid-parameter");
            }
        }
        for (list, cursor) in lists.iter().zip(&given) {
            let bytes = URL_SAFE_NO_PAD.decode(cursor).unwrap();
            let mut last = bytes.clone();
            *last.last_mut().unwrap() ^= 1;
            let early = String::from_utf8_lossy(&bytes[16..]).replace("\"20", "\"-47");
            let early = [&bytes[..16], early.as_bytes()].concat();
            for forged in [&last, &bytes[16..].to_vec(), &early] {
                if *forged == bytes {
                    continue;
                }
                let path = format!("{list}cursor={}", URL_SAFE_NO_PAD.encode(forged));
                assert_problem(&path, &admin.get(&path).send().await, 400, "invalid-parameter");
            }
        }
    }

    pub async fn keys_and_versions(app: &TestApp) {
        let staff = &app.staff;
        let product = staff.product(1_000, 10).await;
        let path = format!("/products/{product}");
        let tag = |answer: &Answer| answer.header("etag").unwrap().to_owned();
        let stale = tag(&staff.get(&path).expect(200).await);
        let changed = staff.patch(&path, &json!({"name": "B"})).header("if-match", &stale);
        let fresh = tag(&changed.expect(200).await);
        assert_ne!(stale, fresh);
        let late =
            staff.patch(&path, &json!({"name": "C"})).header("if-match", &stale).send().await;
        assert_problem("a stale version", &late, 412, "version-mismatch");

        let customer = staff.customer().await;
        let body = order(customer, &[(product, 2)]);
        let first = staff.post("/orders", &body).key("k").expect(201).await;
        let again = staff.post("/orders", &body).key("\"k\"").expect(201).await;
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
        for header in ["location", "etag", "log-position"] {
            assert_eq!(first.header(header), again.header(header), "{header}");
        }
        assert_eq!(first.body, again.body);
        let other = staff.post("/orders", &order(customer, &[(product, 1)])).key("k").send().await;
        assert_problem("another body", &other, 422, "idempotency-key-reused");
        assert_eq!(Books::read(&*app.log()).await.orders.len(), 1);

        // A resource has one path: an id in another form names no resource, and an escaped character
        // makes no other command.
        let stock = json!({"quantity": 1, "reason": "received"});
        let changed = staff.post(&format!("{path}/stock"), &stock).key("s").expect(200).await;
        let escaped = path.replace('-', "%2D");
        let again = staff.post(&format!("{escaped}/stock"), &stock).key("s").expect(200).await;
        assert_eq!(
            (again.header("idempotency-replayed"), &again.body),
            (Some("true"), &changed.body)
        );
        let id = product.to_string();
        for other in [
            id.to_uppercase(),
            id.replace('-', ""),
            format!("%7B{id}%7D"),
            format!("urn:uuid:{id}"),
            format!("{id}%20"),
        ] {
            let path = format!("/products/{other}");
            assert_problem(&path, &staff.get(&path).send().await, 404, "not-found");
            let twin = staff.post(&format!("{path}/stock"), &stock).key("s").send().await;
            assert_problem(&path, &twin, 404, "not-found");
            let stream = format!("/admin/streams/product-{other}");
            let admin = app.caller(Role::Admin, "operator");
            assert_problem(&stream, &admin.get(&stream).send().await, 404, "not-found");
        }

        // Read-your-writes and conditional reads.
        let token = first.header("log-position").unwrap();
        let location = first.header("location").unwrap().trim_start_matches("/api/v1").to_owned();
        let shown = staff.get(&location).header("min-log-position", token).expect(200).await;
        assert_eq!(shown.body, first.body);
        let unchanged = staff.get(&location).header("if-none-match", tag(&shown)).send().await;
        assert_eq!(unchanged.status, 304);
        let ahead = staff
            .get(&location)
            .header("min-log-position", "0:999999999")
            .header("prefer", "wait=0")
            .send()
            .await;
        assert_problem("ahead of the log", &ahead, 503, "projection-behind");
        assert!(ahead.header("retry-after").is_some());
    }
}
