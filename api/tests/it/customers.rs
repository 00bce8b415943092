//! An e-mail address belongs to at most one customer.

use crate::{
    app::{TestApp, ground},
    client::{Answer, Api, order},
    on_both_logs,
};
use futures::future::{join, join_all};
use orderlog::{
    auth::Role,
    config::{LogChoice, Registration},
};
use serde_json::{Value, json};
use uuid::Uuid;

on_both_logs!(
    of_two_registrations_of_one_address_one_succeeds,
    an_address_that_was_let_go_can_be_taken,
    a_taken_address_costs_nothing,
    an_address_is_one_however_it_is_written_and_is_found_so,
    of_many_changes_to_one_address_one_succeeds,
    two_customers_swap_addresses_by_way_of_a_third,
    orders_are_counted_once_they_are_confirmed,
);

fn reader(email: &str) -> Value {
    json!({"email": email, "first_name": "A", "last_name": "Reader"})
}

fn is_taken(answer: &Answer) -> bool {
    answer.status == 409 && answer.problem() == "email-taken"
}

mod scenario {
    use super::*;
    pub async fn of_two_registrations_of_one_address_one_succeeds(app: &TestApp) {
        let anyone = app.staff.anonymous();
        for round in 0..10 {
            let (one, other) = (
                reader(&format!("twin-{round}@example.org")),
                reader(&format!("TWIN-{round}@Example.org")),
            );
            let (one, other) = join(
                anyone.post("/customers", &one).send(),
                anyone.post("/customers", &other).send(),
            )
            .await;
            let (winner, loser) = if one.status == 201 { (one, other) } else { (other, one) };
            assert_eq!(winner.status, 201, "{:?}", winner.body);
            assert!(is_taken(&loser), "{:?}", loser.body);
        }
    }

    pub async fn an_address_that_was_let_go_can_be_taken(app: &TestApp) {
        let first = app.staff.post("/customers", &reader("old@example.org")).expect(201).await;
        let path = format!("/customers/{}", first.id("customer_id"));
        let second = app.staff.post("/customers", &reader("second@example.org")).expect(201).await;

        // Another customer's address is refused, and no part of the request takes effect.
        let wanted = json!({"email": "Second@example.org", "first_name": "B"});
        assert!(is_taken(&app.staff.patch(&path, &wanted).send().await));
        app.caught_up().await;
        let shown = app.staff.get(&path).expect(200).await;
        assert_eq!(
            (&shown.body["email"], &shown.body["first_name"]),
            (&json!("old@example.org"), &json!("A"))
        );

        app.staff.patch(&path, &json!({"email": "new@example.org"})).expect(200).await;
        app.settled().await;
        app.staff.post("/customers", &reader("OLD@example.org")).expect(201).await;
        app.caught_up().await;
        let found = app.staff.get("/customers?email=second@example.org").expect(200).await;
        assert_eq!(found.body["customer_id"], second.body["customer_id"]);
    }

    pub async fn a_taken_address_costs_nothing(app: &TestApp) {
        app.staff.post("/customers", &reader("ann@example.org")).expect(201).await;
        app.settled().await;
        let before = app.events_in_log().await;
        let keys = "select count(*) from keys.customer_key";
        let keys = || sqlx::query_scalar::<_, i64>(keys).fetch_one(app.running().pool());
        let keys_before = keys().await.unwrap_or_default();
        let anyone = app.staff.anonymous();
        for email in ["ann@example.org", "ANN@Example.org"] {
            assert!(is_taken(&anyone.post("/customers", &reader(email)).send().await));
            assert!(is_taken(&anyone.post("/customers", &reader(email)).key("k").send().await));
        }
        assert_eq!(app.events_in_log().await, before, "something was appended");
        assert_eq!(keys().await.unwrap_or_default(), keys_before, "a key was made");
    }

    pub async fn an_address_is_one_however_it_is_written_and_is_found_so(app: &TestApp) {
        let pairs = [
            ("\u{3a3}\u{391}\u{3a3}@x.example", "\u{3c3}\u{3b1}\u{3c3}@x.example"),
            ("ann@b\u{fc}cher.example", "ann@xn--bcher-kva.example"),
            ("stra\u{df}e@x.example", "STRASSE@x.example"),
            ("\u{ff45}ve@x.example", "Eve@X.example"),
            ("ann+news@x.example", "Ann+News@x.example"),
        ];
        let other = app.staff.post("/customers", &reader("other@x.example")).expect(201).await;
        let other = format!("/customers/{}", other.id("customer_id"));
        for (one, same) in pairs {
            let made = app.staff.post("/customers", &reader(one)).expect(201).await;
            assert_eq!(made.body["email"], one, "it is shown as it was given");
            assert!(is_taken(&app.staff.post("/customers", &reader(same)).send().await), "{same}");
            assert!(is_taken(&app.staff.patch(&other, &json!({"email": same})).send().await));
            for email in [one, same] {
                let found = app.staff.post("/customers/lookup", &json!({"email": email}));
                let found = found.after([&made]).expect(200).await;
                assert_eq!(found.body["customer_id"], made.body["customer_id"], "{email}");
            }
        }
        // In a URL a plus that is not escaped is read as a blank.
        for query in ["ann+news@x.example", "ann%2Bnews@x.example", "%20ANN+news@x.example"] {
            let found = app.staff.get(&format!("/customers?email={query}")).expect(200).await;
            assert_eq!(found.body["email"], "ann+news@x.example");
        }
        for email in ["eve\u{200b}@y.example", "eve\u{2800}@y.example", "e\u{ad}ve@y.example"] {
            app.staff.post("/customers", &reader(email)).expect(422).await;
        }
        app.staff.post("/customers/lookup", &json!({"email": "nobody"})).expect(422).await;
        let missing = json!({"email": "nobody@x.example"});
        app.staff.post("/customers/lookup", &missing).expect(404).await;
    }

    pub async fn of_many_changes_to_one_address_one_succeeds(app: &TestApp) {
        let mut paths = Vec::new();
        for n in 0..8 {
            let email = format!("many-{n}@example.org");
            let customer = app.staff.post("/customers", &reader(&email)).expect(201).await;
            paths.push(format!("/customers/{}", customer.id("customer_id")));
        }
        for round in 0..5 {
            let wanted = format!("prize-{round}@example.org");
            let change =
                async |path: &String| app.staff.patch(path, &json!({"email": wanted})).send().await;
            let answers = join_all(paths.iter().map(change)).await;
            let winners = answers.iter().filter(|answer| answer.status == 200).count();
            let losers = answers.iter().filter(|answer| is_taken(answer)).count();
            assert_eq!((winners, losers), (1, paths.len() - 1), "{answers:?}");
        }
    }

    pub async fn two_customers_swap_addresses_by_way_of_a_third(app: &TestApp) {
        let mut paths = Vec::new();
        for email in ["left@example.org", "right@example.org"] {
            let customer = app.staff.post("/customers", &reader(email)).expect(201).await;
            paths.push(format!("/customers/{}", customer.id("customer_id")));
        }
        let change = |at: usize, email| app.staff.patch(&paths[at], &json!({"email": email}));
        // A direct swap fails, because each address is still taken.
        let (one, other) =
            join(change(0, "right@example.org").send(), change(1, "left@example.org").send()).await;
        assert!(is_taken(&one) && is_taken(&other), "{one:?} {other:?}");
        change(0, "between@example.org").expect(200).await;
        app.settled().await;
        change(1, "left@example.org").expect(200).await;
        app.settled().await;
        change(0, "right@example.org").expect(200).await;
        app.settled().await;
        app.caught_up().await;
        for (at, email) in [(0, "right@example.org"), (1, "left@example.org")] {
            assert_eq!(app.staff.get(&paths[at]).expect(200).await.body["email"], email);
        }
    }

    pub async fn orders_are_counted_once_they_are_confirmed(app: &TestApp) {
        let product = app.staff.product(1_000, 3).await;
        let reader = app.staff.customer().await;
        let own = app.caller(Role::Customer, &reader.to_string());
        let counted = async || {
            app.settled().await;
            app.caught_up().await;
            let shown = own.get(&format!("/customers/{reader}")).expect(200).await;
            (shown.body["order_count"].as_u64().unwrap(), shown.body["vip"] == true)
        };
        let place = async |lines: &[(Uuid, i64)], status| {
            app.staff.post("/orders", &order(reader, lines)).expect(status).await
        };
        let first = place(&[(product, 1)], 201).await;
        place(&[(product, 9)], 409).await;
        assert_eq!(counted().await, (1, false));
        // A confirmed order counts even if it is cancelled later.
        let cancel = format!("/orders/{}/cancel", first.id("order_id"));
        own.post(&cancel, &json!({})).expect(200).await;
        assert_eq!(counted().await, (1, false));
        let path = format!("/customers/{reader}");
        own.patch(&path, &json!({"vip": true})).expect(403).await;
        app.staff.patch(&path, &json!({"vip": true})).expect(200).await;
        place(&[(product, 1)], 201).await;
        assert_eq!(counted().await, (2, true));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registrations_from_one_address_are_limited() {
    let mut ground = ground(LogChoice::Embedded).await;
    ground.config.registrations_per_minute = 3;
    let app = TestApp::start(ground).await;
    let anyone = app.staff.anonymous();
    let register = async |api: &Api, n: u32| {
        api.post("/customers", &reader(&format!("limited-{n}@example.org"))).send().await
    };
    for n in 0..3 {
        assert_eq!(register(&anyone, n).await.status, 201);
    }
    let refused = register(&anyone, 3).await;
    assert_eq!((refused.status, refused.problem()), (429, "rate-limited"));
    assert!(refused.header("retry-after").is_some());
    // A question costs the same as a registration, and staff are not limited.
    assert_eq!(register(&anyone, 0).await.status, 429);
    assert_eq!(register(&app.staff, 3).await.status, 201);
    anyone.get("/products").expect(200).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shop_may_leave_registrations_to_its_staff() {
    let mut ground = ground(LogChoice::Embedded).await;
    ground.config.registration = Registration::Staff;
    let app = TestApp::start(ground).await;
    let body = reader("ann@example.org");
    let customer = app.caller(Role::Customer, &Uuid::now_v7().to_string());
    assert_eq!(app.staff.anonymous().post("/customers", &body).send().await.status, 401);
    assert_eq!(customer.post("/customers", &body).send().await.status, 403);
    app.staff.post("/customers", &body).expect(201).await;
    app.finish().await;
}
