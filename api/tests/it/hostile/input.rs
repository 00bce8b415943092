//! Random bodies and headers: never a status 500, and a refused command appends nothing.
//!
//! `PROPTEST_CASES=n` runs more cases, `PROPTEST_RNG_SEED=n` other ones.

use crate::{
    app::{TestApp, ground},
    books::Books,
    client::order,
};
use orderlog::{auth::Role, config::LogChoice};
use proptest::{
    prelude::*,
    sample::Index,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};
use reqwest::Method;
use serde_json::{Value, json};

/// Any JSON with little nesting.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop::sample::select(vec![0, -1, 1, i64::MAX, i64::MIN, 1 << 53, 1_000_001])
            .prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop::sample::select(vec![
            "",
            "\0",
            "GBP",
            "EUR",
            "received",
            "shipped",
            "pm_card_visa",
            "\u{202e}",
            "a@b.c"
        ])
        .prop_map(Value::from),
        "[ -~]{0,300}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{0,12}", inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// A change of a valid body.
#[derive(Clone, Debug)]
enum Change {
    Put(Index, Value),
    Remove(Index),
    Add(String, Value),
    Flip(Index, u8),
    Cut(Index),
    Insert(Index, Vec<u8>),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (any::<Index>(), any_json()).prop_map(|(at, value)| Change::Put(at, value)),
        1 => any::<Index>().prop_map(Change::Remove),
        1 => ("[a-z_]{0,12}", any_json()).prop_map(|(name, value)| Change::Add(name, value)),
        1 => (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        1 => any::<Index>().prop_map(Change::Cut),
        1 => (any::<Index>(), any::<Vec<u8>>()).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
    ]
}

/// The JSON pointers of all parts of a value.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(members) => {
            members
                .iter()
                .for_each(|(name, member)| places(member, &format!("{at}/{name}"), found));
        }
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(n, item)| places(item, &format!("{at}/{n}"), found));
        }
        _ => {}
    }
}

fn changed(good: &Value, change: Change) -> Vec<u8> {
    let mut value = good.clone();
    let mut found = Vec::new();
    places(&value, "", &mut found);
    let mut bytes = good.to_string().into_bytes();
    match change {
        Change::Put(at, new) => *value.pointer_mut(at.get::<String>(&found)).unwrap() = new,
        Change::Remove(at) => {
            let place = at.get(&found);
            let (parent, name) = place.rsplit_once('/').unwrap_or_default();
            match value.pointer_mut(parent) {
                Some(Value::Object(members)) => drop(members.remove(name)),
                Some(Value::Array(items)) => items.clear(),
                _ => {}
            }
        }
        Change::Add(name, new) => value[name] = new,
        Change::Flip(at, bit) => {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            return bytes;
        }
        Change::Cut(at) => {
            bytes.truncate(at.index(bytes.len()));
            return bytes;
        }
        Change::Insert(at, new) => {
            let at = at.index(bytes.len());
            bytes.splice(at..at, new);
            return bytes;
        }
    }
    value.to_string().into_bytes()
}

/// Every command with a body: its method, its path and a valid body.
async fn commands(app: &TestApp) -> Vec<(Method, String, Value)> {
    let staff = &app.staff;
    let (product, customer) = (staff.product(1_000, 1_000_000).await, staff.customer().await);
    let placed = order(customer, &[(product, 1)]);
    let order_id = staff.post("/orders", &placed).expect(201).await.id("order_id");
    let (post, patch) = (|| Method::POST, || Method::PATCH);
    let price = json!({"amount": 1, "currency": "GBP"});
    vec![
        (post(), "/orders".into(), placed),
        (post(), format!("/orders/{order_id}/cancel"), json!({"reason": "late"})),
        (patch(), format!("/orders/{order_id}/status"), json!({"status": "processing"})),
        (
            post(),
            "/products".into(),
            json!({"name": "A", "description": "d", "category": "c", "price": price, "initial_stock": 1}),
        ),
        (
            patch(),
            format!("/products/{product}"),
            json!({"name": "B", "description": null, "price": price}),
        ),
        (
            post(),
            format!("/products/{product}/stock"),
            json!({"quantity": 1, "reason": "received"}),
        ),
        (
            post(),
            "/customers".into(),
            json!({"email": "a@example.org", "first_name": "A", "last_name": "B"}),
        ),
        (patch(), format!("/customers/{customer}"), json!({"first_name": "C", "vip": true})),
    ]
}

/// The number of cases for each command. They share one shop, so there are fewer than for pure
/// functions.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|it| it.parse().ok()).unwrap_or(48)
}

fn runner() -> TestRunner {
    let seed = std::env::var("PROPTEST_RNG_SEED").ok().and_then(|it| it.parse().ok());
    let seed: u64 = seed.unwrap_or(7);
    let rng_seed = proptest::test_runner::RngSeed::Fixed(seed);
    TestRunner::new(Config { rng_seed, ..Config::default() })
}

fn draw<T: std::fmt::Debug>(runner: &mut TestRunner, strategy: &impl Strategy<Value = T>) -> T {
    strategy.new_tree(runner).unwrap().current()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_body_makes_a_fault_and_what_is_refused_appends_nothing() {
    let app = TestApp::start(ground(LogChoice::Embedded).await).await;
    let mut runner = runner();
    let (anything, change) = (any_json(), change());
    app.settled().await;
    let (mut taken, mut refused) = (0, 0);
    for (method, path, good) in commands(&app).await {
        app.settled().await;
        let mut before = app.events_in_log().await;
        for number in 0..cases() {
            let body = if number % 4 == 0 {
                draw(&mut runner, &anything).to_string().into_bytes()
            } else {
                changed(&good, draw(&mut runner, &change))
            };
            let shown = String::from_utf8_lossy(&body).into_owned();
            let call = app.staff.call(method.clone(), &path).raw("application/json", body);
            let answer = call.send().await;
            let what = format!("{method} {path} {shown}: {} {:?}", answer.status, answer.body);
            assert!(answer.status < 500, "{what}");
            if [400, 403, 413, 415, 422].contains(&answer.status) {
                refused += 1;
                assert_eq!(
                    answer.header("content-type"),
                    Some("application/problem+json"),
                    "{what}"
                );
                assert_eq!(app.events_in_log().await, before, "{what}");
            } else {
                taken += 1;
                // Wait until the effects of the command are finished, so that they are not mistaken
                // for events of the next refused command.
                Box::pin(app.settled()).await;
                before = app.events_in_log().await;
            }
        }
    }
    println!("{taken} taken, {refused} refused");
    assert!(taken > 0 && refused > taken);
    app.finish().await;
}

/// Random headers, including ones that our own client would not send, and random parameters.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_header_and_no_parameter_makes_a_fault() {
    let app = TestApp::start(ground(LogChoice::Embedded).await).await;
    let (product, customer) = (app.staff.product(1_000, 10).await, app.staff.customer().await);
    app.settled().await;
    let (mut runner, before) = (runner(), app.events_in_log().await);
    let text =
        prop_oneof!["[ -~]{0,80}", "[0-9:,.-]{0,60}", "[A-Za-z0-9_-]{0,200}", "\"[ -~]{0,20}\"?"];
    let headers =
        ["min-log-position", "if-none-match", "prefer", "traceparent", "authorization", "accept"];
    let names = [
        "cursor",
        "limit",
        "status",
        "placed_from",
        "placed_to",
        "customer_id",
        "category",
        "email",
    ];
    let paths = ["/orders", "/products", "/customers", "/admin/projections", "//readyz"];
    let one = format!("/products/{product}");
    for number in 0..cases() as usize * 4 {
        let value = draw(&mut runner, &text);
        let answer = match number % 3 {
            0 => {
                let call =
                    app.staff.get(&one).header(headers[number / 3 % headers.len()], value.trim());
                call.header("prefer", "wait=0").send().await
            }
            1 => {
                let name = names[number / 3 % names.len()];
                let query: String = form_urlencoded::Serializer::new(String::new())
                    .append_pair(name, &value)
                    .finish();
                app.staff.get(&format!("{}?{query}", paths[number % paths.len()])).send().await
            }
            _ => {
                let call = app.staff.post("/orders", &json!({"customer_id": customer}));
                call.header("if-match", value.trim())
                    .header("idempotency-key", value.trim())
                    .send()
                    .await
            }
        };
        let waits = answer.status == 503 && answer.problem() == "projection-behind";
        assert!(
            answer.status < 500 || waits,
            "{number} {value:?}: {} {:?}",
            answer.status,
            answer.body
        );
    }
    let anybody = app.caller(Role::Customer, "nobody's id");
    assert_eq!(anybody.get("/orders").send().await.status, 403);
    app.settled().await;
    assert_eq!(app.events_in_log().await, before);
    assert_eq!(Books::read(&*app.log()).await.orders.len(), 0);
    app.finish().await;
}
