//! Erasure of a customer: in the log, in the read models and in replayed answers.

use crate::{
    app::{Ground, TestApp, eventually, fresh_topic, ground, settled},
    client::{Api, order, order_paid_by},
    on_both_logs,
    program::{self, Program},
};
use commands::customer::Belonging;
use futures::future::join_all;
use orderlog::{auth::Role, config::LogChoice};
use serde_json::{Value, json};
use uuid::Uuid;

on_both_logs!(
    nothing_personal_can_be_read_any_more,
    an_order_that_is_open_goes_on,
    whoever_has_orders_to_be_shipped_is_erased_only_if_that_is_meant,
    the_address_is_shown_where_one_order_is_read_until_its_customer_is_erased,
    changes_that_meet_the_erasure_are_made_before_it_or_refused,
    a_registration_under_way_is_erased_with_the_rest,
    a_rebuild_shows_who_is_erased_as_erased,
    all_that_belongs_to_a_customer_is_destroyed,
);

fn reader(email: &str) -> Value {
    json!({"email": email, "first_name": "Ada", "last_name": "Byron"})
}

/// Registers a customer with this address. Returns the id and the path.
pub async fn registered(api: &Api, email: &str) -> (Uuid, String) {
    let id = api.post("/customers", &reader(email)).expect(201).await.id("customer_id");
    (id, format!("/customers/{id}"))
}

/// Erases a customer, whatever is still to be shipped.
pub async fn erase(api: &Api, path: &str) -> crate::client::Answer {
    let path = format!("{path}?confirm=open-orders");
    api.call(reqwest::Method::DELETE, &path).expect(200).await
}

/// The row of a customer in the read model.
async fn row(app: &TestApp, id: Uuid) -> (String, String) {
    app.caught_up().await;
    let row = sqlx::query_as("select email, first_name from read.customers where customer_id = $1");
    row.bind(id).fetch_one(app.running().pool()).await.unwrap()
}

mod scenario {
    use super::*;

    pub async fn nothing_personal_can_be_read_any_more(app: &TestApp) {
        let product = app.staff.product(2_500, 10).await;
        let email = "ada@example.org";
        let register = || app.staff.post("/customers", &reader(email)).key("register");
        let id = register().expect(201).await.id("customer_id");
        let path = format!("/customers/{id}");
        let change = || app.staff.patch(&path, &json!({"last_name": "Lovelace"})).key("change");
        change().expect(200).await;
        let mut place = order(id, &[(product, 1)]);
        place["shipping_address"] = "1 Mill Lane, York".into();
        let placed = app.staff.post("/orders", &place).key("place").expect(201).await;
        let order_path = format!("/orders/{}", placed.id("order_id"));
        app.caught_up().await;
        let before = app.staff.get(&order_path).expect(200).await;
        let sealed = row(app, id).await;

        let ada = app.caller(Role::Customer, &id.to_string());
        let stranger = app.caller(Role::Customer, &Uuid::now_v7().to_string());
        stranger.call(reqwest::Method::DELETE, &path).expect(403).await;
        app.staff.anonymous().call(reqwest::Method::DELETE, &path).expect(401).await;
        let erased = erase(&ada, &path).await;
        assert_eq!(erased.body["order_count"], 1);
        let key = app.running().app().keys.get(&[id]).await.unwrap();
        assert_eq!(key, [None], "the answer waits until the key is destroyed");

        for api in [&ada, &app.staff] {
            assert_eq!(api.get(&path).expect(410).await.problem(), "gone");
            assert_eq!(
                api.patch(&path, &json!({"first_name": "A"})).expect(410).await.problem(),
                "gone"
            );
            let again = erase(api, &path).await;
            assert_eq!(again.body, erased.body);
            assert_eq!(again.header("etag"), erased.header("etag"));
            let refused = api.post("/orders", &place).expect(404).await;
            assert_eq!(refused.problem(), "customer-not-found");
        }
        // Earlier answers are not replayed any more.
        for replay in [register(), change()] {
            assert_eq!(replay.expect(410).await.problem(), "gone");
        }
        let replayed = app.staff.post("/orders", &place).key("place").expect(201).await;
        assert_eq!(replayed.body, placed.body);
        // The order stays readable without its address, and so does its history, with personal data
        // encrypted.
        let mut without = before.body.clone();
        assert_eq!(without["shipping_address"], "1 Mill Lane, York");
        without.as_object_mut().unwrap().remove("shipping_address");
        assert_eq!(app.staff.get(&order_path).expect(200).await.body, without);
        app.staff.get(&format!("{order_path}/history")).expect(200).await;
        ada.get(&order_path).expect(200).await;
        let admin = app.caller(Role::Admin, "root");
        let events = admin.get(&format!("/admin/streams/customer-{id}")).expect(200).await;
        assert!(!events.body.to_string().contains("Byron"));
        assert_ne!(sealed.0, "");
        assert_eq!(row(app, id).await, (String::new(), String::new()));

        // The address is free at once.
        assert_eq!(app.staff.get(&format!("/customers?email={email}")).send().await.status, 404);
        registered(&app.staff, email).await;
        let missing = format!("/customers/{}", Uuid::now_v7());
        app.staff.call(reqwest::Method::DELETE, &missing).expect(404).await;
    }

    pub async fn an_order_that_is_open_goes_on(app: &TestApp) {
        let product = app.staff.product(2_500, 10).await;
        let (id, path) = registered(&app.staff, "slow@example.org").await;
        let slow = order_paid_by(id, &[(product, 1)], "pm_card_slow");
        let placed =
            app.staff.post("/orders", &slow).header("prefer", "respond-async").expect(202).await;
        let history = format!("/orders/{}/history", placed.id("order_id"));
        eventually("the order is open at its customer", async || {
            let events = app.staff.get(&history).send().await.body;
            events.to_string().contains("PaymentStarted").then_some(())
        })
        .await;
        erase(&app.staff, &path).await;
        let books = app.settled().await;
        assert_eq!(books.count("confirmed"), 1);
    }

    pub async fn whoever_has_orders_to_be_shipped_is_erased_only_if_that_is_meant(app: &TestApp) {
        let product = app.staff.product(2_500, 10).await;
        let (id, path) = registered(&app.staff, "waits@example.org").await;
        let place = async || {
            let placed = app.staff.post("/orders", &order(id, &[(product, 1)])).expect(201).await;
            placed.id("order_id")
        };
        let delete =
            |query: &str| app.staff.call(reqwest::Method::DELETE, &format!("{path}{query}"));
        let (first, second, shipped) = (place().await, place().await, place().await);
        let status = |order: Uuid, status: &str| {
            app.staff.patch(&format!("/orders/{order}/status"), &json!({"status": status}))
        };
        status(shipped, "shipped").expect(200).await;
        status(second, "processing").expect(200).await;
        app.settled().await;
        let before = app.events_in_log().await;
        let refused = delete("").key("erase").expect(409).await;
        assert_eq!(refused.problem(), "open-orders");
        assert_eq!(refused.body["order_ids"], json!([second, first]));
        for query in ["?confirm=", "?confirm=yes", "?confirm=open-orders&confirm=open-orders"] {
            assert_eq!(delete(query).expect(400).await.problem(), "invalid-parameter");
        }
        assert_eq!(app.events_in_log().await, before, "a refusal writes nothing");
        app.staff.get(&path).expect(200).await;

        status(first, "cancelled").expect(200).await;
        assert_eq!(delete("").expect(409).await.body["order_ids"], json!([second]));
        // The same key confirms what it asked for.
        delete("?confirm=open-orders").key("erase").expect(200).await;
        for query in ["", "?confirm=open-orders"] {
            delete(query).expect(200).await;
        }
        let (_, other) = registered(&app.staff, "shipped@example.org").await;
        app.staff.call(reqwest::Method::DELETE, &other).expect(200).await;
    }

    pub async fn the_address_is_shown_where_one_order_is_read_until_its_customer_is_erased(
        app: &TestApp,
    ) {
        let product = app.staff.product(2_500, 10).await;
        let (id, path) = registered(&app.staff, "ada@example.org").await;
        let own = app.caller(Role::Customer, &id.to_string());
        let address = "1 Mill Lane\nYork";
        let mut place = order(id, &[(product, 1)]);
        place["shipping_address"] = address.into();
        let placed = own.post("/orders", &place).expect(201).await;
        let at = placed.header("log-position").unwrap().to_owned();
        let order_path = format!("/orders/{}", placed.id("order_id"));
        for api in [&own, &app.staff] {
            let shown = api.get(&order_path).expect(200).await;
            assert_eq!(shown.body["shipping_address"], address);
            let then = api.get(&format!("{order_path}?as_of={at}")).expect(200).await;
            assert_eq!(then.body["shipping_address"], address);
            app.caught_up().await;
            for list in ["/orders".to_owned(), format!("/customers/{id}/orders")] {
                let listed = api.get(&list).expect(200).await.body;
                assert_eq!(listed["items"][0]["order_id"], placed.body["order_id"]);
                assert!(!listed.to_string().contains("Mill"), "{listed}");
            }
        }
        let stranger = app.caller(Role::Customer, &Uuid::now_v7().to_string());
        stranger.get(&order_path).expect(404).await;
        erase(&app.staff, &path).await;
        for api in [&own, &app.staff] {
            for path in [order_path.clone(), format!("{order_path}?as_of={at}")] {
                let shown = api.get(&path).expect(200).await;
                assert!(shown.body.get("shipping_address").is_none(), "{:?}", shown.body);
            }
        }
    }

    pub async fn all_that_belongs_to_a_customer_is_destroyed(app: &TestApp) {
        let product = app.staff.product(2_500, 10).await;
        let (id, path) = registered(&app.staff, "all@example.org").await;
        let own = app.caller(Role::Customer, &id.to_string());
        let wish = json!({"product_id": product});
        own.post("/wishlist/items", &wish).key("wish").expect(201).await;
        app.staff.post("/orders", &order(id, &[(product, 1)])).expect(201).await;
        app.settled().await;
        let is_there = async |belonging: Belonging| match belonging {
            Belonging::Key => app.running().app().keys.get(&[id]).await.unwrap()[0].is_some(),
            Belonging::Letters => {
                app.running().data_dir().join("mails").join(id.to_string()).exists()
            }
            Belonging::Wishlist => {
                app.caught_up().await;
                let rows = "select count(*) from read.wishlists where customer_id = $1";
                let rows = sqlx::query_scalar::<_, i64>(rows).bind(id);
                rows.fetch_one(app.running().pool()).await.unwrap() > 0
            }
        };
        for belonging in Belonging::ALL {
            assert!(is_there(belonging).await, "{belonging:?}");
        }
        erase(&app.staff, &path).await;
        // At once, and by every way, also for a request that was answered before.
        let item = format!("/wishlist/items/{product}");
        for call in [
            own.get("/wishlist/items"),
            own.post("/wishlist/items", &wish),
            own.post("/wishlist/items", &wish).key("wish"),
            own.call(reqwest::Method::DELETE, &item),
        ] {
            assert_eq!(call.expect(410).await.problem(), "gone");
        }
        for belonging in Belonging::ALL {
            assert!(!is_there(belonging).await, "{belonging:?}");
        }
    }

    pub async fn changes_that_meet_the_erasure_are_made_before_it_or_refused(app: &TestApp) {
        for round in 0..5 {
            let (id, path) = registered(&app.staff, &format!("old-{round}@example.org")).await;
            let product = app.staff.product(1_000, 100).await;
            let change = async |n: usize| {
                let email = format!("new-{round}-{n}@example.org");
                let wanted = json!({"email": email, "first_name": format!("A{n}")});
                let answer = app.staff.patch(&path, &wanted).send().await;
                // Too many concurrent changes get a retryable error.
                assert!([200, 410, 503].contains(&answer.status), "{:?}", answer.body);
            };
            let place = async |_| {
                let mut wanted = order(id, &[(product, 1)]);
                wanted["shipping_address"] = "1 Mill Lane, York".into();
                let answer = app.staff.post("/orders", &wanted).send().await;
                assert!([201, 404].contains(&answer.status), "{:?}", answer.body);
            };
            let erasing = async {
                erase(&app.staff, &path).await;
            };
            let (_, _, ()) = futures::future::join3(
                join_all((0..6).map(change)),
                join_all((0..6).map(place)),
                erasing,
            )
            .await;
            app.staff.get(&path).expect(410).await;
        }
    }

    pub async fn a_registration_under_way_is_erased_with_the_rest(app: &TestApp) {
        for round in 0..10 {
            let email = format!("hasty-{round}@example.org");
            let call = app.staff.post("/customers", &reader(&email));
            let asked = call.header("prefer", "respond-async").expect(202).await;
            let path = format!("/customers/{}", asked.id("customer_id"));
            erase(&app.staff, &path).await;
            app.staff.get(&path).expect(410).await;
            registered(&app.staff, &email).await;
        }
    }

    pub async fn a_rebuild_shows_who_is_erased_as_erased(app: &TestApp) {
        let (id, path) = registered(&app.staff, "gone@example.org").await;
        erase(&app.staff, &path).await;
        let (_, other) = registered(&app.staff, "stays@example.org").await;
        app.caught_up().await;
        let admin = app.caller(Role::Admin, "root");
        admin.post("/admin/projections/customers/rebuild", &json!({})).send().await;
        eventually("the rebuilt version serves", async || {
            let shown = admin.get("/admin/projections").expect(200).await.body;
            let items = shown["items"].as_array().unwrap();
            let serves = |item: &&Value| {
                item["name"] == "customers" && item["serving"] == true && item["version"] != 1
            };
            items.iter().find(serves).map(|_| ())
        })
        .await;
        app.staff.get(&path).expect(410).await;
        app.staff.get(&other).expect(200).await;
        assert_eq!(row(app, id).await, (String::new(), String::new()));
    }
}

/// An erasure that a kill interrupted finishes after the restart without a request.
async fn an_erasure_ends_after_a_kill(ground: Ground) {
    let mut program = Program::start(&ground);
    let mut paths = Vec::new();
    for round in 0..5 {
        let email = format!("killed-{round}@example.org");
        let (_, path) = registered(&program.staff, &email).await;
        let erase = program.staff.call(reqwest::Method::DELETE, &path);
        // The erasure is durable and most likely not finished.
        let answer = erase.header("prefer", "respond-async").send().await;
        assert!([200, 202].contains(&answer.status), "{:?}", answer.body);
        program.kill();
        program = Program::start(&ground);
        paths.push((path, email));
    }
    let log = program::open_log(&ground).await;
    settled(&*log).await.check();
    for (path, email) in paths {
        program.staff.get(&path).expect(410).await;
        registered(&program.staff, &email).await;
    }
    settled(&*log).await.check();
    assert!(program.stop().success());
    program::delete_topic(&ground.config.log).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_ends_after_a_kill_on_the_embedded_log() {
    an_erasure_ends_after_a_kill(ground(LogChoice::Embedded).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_ends_after_a_kill_on_kafka() {
    let Some(log) = fresh_topic() else { return };
    an_erasure_ends_after_a_kill(ground(log).await).await;
}
