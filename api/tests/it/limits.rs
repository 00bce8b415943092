//! How much one customer may have under way, and what an address has had before.

use crate::{
    app::{Ground, TestApp, eventually, fresh_topic, ground},
    client::{order, order_paid_by},
    erasure::{erase, registered},
    on_both_logs,
};
use commands::OrderLimits;
use orderlog::{auth::Role, config::LogChoice};
use serde_json::{Value, json};
use uuid::Uuid;

on_both_logs!(
    the_first_order_discount_is_given_once_for_an_address,
    the_reason_of_a_cancellation_is_erased_with_the_customer,
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_customer_has_so_many_orders_and_declined_payments_and_no_more() {
    limits_hold(ground(LogChoice::Embedded).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_customer_has_so_many_orders_and_declined_payments_on_kafka() {
    let Some(log) = fresh_topic() else { return };
    limits_hold(ground(log).await).await;
}

async fn limits_hold(mut ground: Ground) {
    ground.config.rules.limits = OrderLimits { open_orders: 2, declined_payments: 3 };
    ground.config.units_per_product = 5;
    let app = TestApp::start(ground).await;
    let product = app.staff.product(1_000, 1_000).await;
    let [reader, other] = [app.staff.customer().await, app.staff.customer().await];
    let slow = order_paid_by(reader, &[(product, 1)], "pm_card_slow");
    let place = async |body: &Value| {
        app.staff.post("/orders", body).header("prefer", "respond-async").send().await
    };
    let placed = [place(&slow).await, place(&slow).await];
    assert!(placed.iter().all(|answer| answer.status == 202), "{placed:?}");
    eventually("both orders are open at their customer", async || {
        let events = app.events_in_log().await;
        let refused = place(&slow).await;
        // Until both are open the aggregate refuses the third, which is an order then.
        if refused.status == 202 {
            return None;
        }
        assert_eq!(refused.problem(), "too-many-open-orders", "{:?}", refused.body);
        (app.events_in_log().await == events).then_some(())
    })
    .await;
    app.staff.post("/orders", &order(other, &[(product, 1)])).expect(201).await;
    eventually("an order is decided, and another may be placed", async || {
        let answer = app.staff.post("/orders", &order(reader, &[(product, 1)])).send().await;
        (answer.status == 201).then_some(())
    })
    .await;

    for _ in 0..3 {
        let card = order_paid_by(other, &[(product, 1)], "pm_card_declined");
        app.staff.post("/orders", &card).expect(402).await;
    }
    let tried = order(other, &[(product, 1)]);
    eventually("the declined payments are counted", async || {
        let answer = app.staff.post("/orders", &tried).send().await;
        (answer.problem() == "too-many-declined-payments").then_some(())
    })
    .await;
    // What earlier orders still owe is written first.
    app.settled().await;
    let events = app.events_in_log().await;
    assert_eq!(
        app.staff.post("/orders", &tried).expect(409).await.problem(),
        "too-many-declined-payments"
    );
    assert_eq!(app.events_in_log().await, events, "nothing is written for it");
    app.staff.post("/orders", &order(reader, &[(product, 5)])).expect(201).await;
    let many = order(reader, &[(product, 3), (product, 3)]);
    assert_eq!(app.staff.post("/orders", &many).expect(422).await.problem(), "validation-failed");
    app.finish().await;
}

mod scenario {
    use super::*;

    pub async fn the_first_order_discount_is_given_once_for_an_address(app: &TestApp) {
        let product = app.staff.product(5_000, 100).await;
        let first_order = async |id: Uuid| {
            let placed = app.staff.post("/orders", &order(id, &[(product, 1)])).expect(201).await;
            placed.discount("first_order")
        };
        let (ann, path) = registered(&app.staff, "ann@example.org").await;
        assert_eq!(first_order(ann).await, Some(1_000));
        app.settled().await;
        erase(&app.staff, &path).await;
        let (again, path) = registered(&app.staff, "Ann@Example.org").await;
        assert_eq!(first_order(again).await, None, "the address had its first order");

        // Neither does it help to come to the address from another one.
        app.settled().await;
        erase(&app.staff, &path).await;
        let (bob, path) = registered(&app.staff, "bob@example.org").await;
        app.staff.patch(&path, &json!({"email": "ann@example.org"})).expect(200).await;
        assert_eq!(first_order(bob).await, None);

        // Who left an address without an order leaves nothing behind.
        let (_, path) = registered(&app.staff, "carl@example.org").await;
        erase(&app.staff, &path).await;
        let (carl, _) = registered(&app.staff, "carl@example.org").await;
        assert_eq!(first_order(carl).await, Some(1_000));
    }

    pub async fn the_reason_of_a_cancellation_is_erased_with_the_customer(app: &TestApp) {
        let product = app.staff.product(5_000, 100).await;
        let words = "call Zephyrine Quillfeather first";
        let (id, customer) = registered(&app.staff, "zephyrine@example.org").await;
        let placed = app.staff.post("/orders", &order(id, &[(product, 1)])).expect(201).await;
        let order_id = placed.id("order_id");
        let (path, reason) = (format!("/orders/{order_id}"), json!({"reason": words}));
        let cancel =
            || app.staff.post(&format!("{path}/cancel"), &reason).key("cancel").expect(200);
        let cancelled = cancel().await;
        assert_eq!(cancelled.body["reason"], words);
        let list = format!("/orders?customer_id={id}");
        let shown = async || {
            app.caught_up().await;
            let list = app.staff.get(&list).expect(200).await.body;
            (app.staff.get(&path).expect(200).await.body, list["items"][0].clone())
        };
        let (one, listed) = shown().await;
        assert_eq!((&one["reason"], &listed["reason"]), (&json!(words), &json!(words)));
        assert_eq!(cancel().await.body["reason"], words, "a retry gets the first answer");

        app.settled().await;
        erase(&app.staff, &customer).await;
        let (one, listed) = shown().await;
        assert_eq!((one.get("reason"), listed.get("reason")), (None, None));
        assert_eq!(one["status"], "cancelled");
        let admin = app.caller(Role::Admin, "root");
        for path in [format!("/admin/streams/order-{order_id}"), format!("{path}/history")] {
            let events = admin.get(&path).expect(200).await.body.to_string();
            assert!(!events.contains("Quillfeather"), "{events}");
        }
        // There is no key any more to seal another reason with.
        let other = app.staff.customer().await;
        let placed = app.staff.post("/orders", &order(other, &[(product, 1)])).expect(201).await;
        erase(&app.staff, &format!("/customers/{other}")).await;
        let path = format!("/orders/{}/cancel", placed.id("order_id"));
        let cancelled = app.staff.post(&path, &reason).expect(200).await;
        assert_eq!(cancelled.body.get("reason"), None);
    }
}
