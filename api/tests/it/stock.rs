//! No unit is sold twice, and no unsold unit stays reserved.

use crate::{
    client::{Answer, Api, order},
    on_both_logs,
};
use futures::future::join_all;
use serde_json::json;
use uuid::Uuid;

on_both_logs!(
    no_more_is_sold_than_there_is,
    orders_in_opposite_line_order_do_not_fail_each_other,
    shipping_lowers_stock_and_cancelling_gives_it_back,
);

async fn customers(api: &Api, count: usize) -> Vec<Uuid> {
    join_all((0..count).map(|_| api.customer())).await
}

/// The number of 201 answers, and the other answers.
fn confirmed(answers: &[Answer]) -> (usize, Vec<&Answer>) {
    let (yes, no): (Vec<&Answer>, Vec<&Answer>) =
        answers.iter().partition(|answer| answer.status == 201);
    assert!(yes.iter().all(|answer| answer.body["status"] == "confirmed"));
    (yes.len(), no)
}

fn is_refused_for_stock(answer: &Answer) {
    assert_eq!((answer.status, answer.problem()), (409, "insufficient-stock"), "{:?}", answer.body);
    let order_id = answer.id("order_id");
    let location = answer.header("location").unwrap();
    assert!(location.ends_with(&format!("/orders/{order_id}")), "{location}");
    assert!(
        answer.body["available"].as_i64().unwrap() < answer.body["requested"].as_i64().unwrap()
    );
}

mod scenario {
    use super::*;
    use crate::app::TestApp;

    pub async fn no_more_is_sold_than_there_is(app: &TestApp) {
        let product = app.staff.product(1299, 100).await;
        let readers = customers(&app.staff, 15).await;
        let orders = (0..300).map(|number| order(readers[number % readers.len()], &[(product, 1)]));
        let answers = join_all(orders.map(async |order| {
            app.staff.post("/orders", &order).header("prefer", "wait=60").send().await
        }))
        .await;
        let (sold, refused) = confirmed(&answers);
        assert_eq!((sold, refused.len()), (100, 200));
        for answer in refused {
            is_refused_for_stock(answer);
            assert_eq!(answer.id("product_id"), product);
        }

        app.settled().await;
        app.caught_up().await;
        let shown = app.staff.get(&format!("/products/{product}")).expect(200).await.body;
        assert_eq!(shown["available"], 0);
        assert_eq!((&shown["on_hand"], &shown["reserved"]), (&json!(100), &json!(100)));
    }

    pub async fn orders_in_opposite_line_order_do_not_fail_each_other(app: &TestApp) {
        let (many, few) = (app.staff.product(500, 60).await, app.staff.product(700, 50).await);
        let readers = customers(&app.staff, 12).await;
        let orders = (0..120).map(|number| {
            let mut lines = [(many, 1), (few, 1)];
            if number % 2 == 1 {
                lines.reverse();
            }
            order(readers[number % readers.len()], &lines)
        });
        let answers = join_all(orders.map(async |order| {
            app.staff.post("/orders", &order).header("prefer", "wait=60").send().await
        }))
        .await;
        let (sold, refused) = confirmed(&answers);
        assert_eq!((sold, refused.len()), (50, 70));
        refused.into_iter().for_each(is_refused_for_stock);

        let books = app.settled().await;
        assert_eq!(books.products[&many].reserved(), 50);
        assert_eq!(books.products[&few].reserved(), 50);
    }

    pub async fn shipping_lowers_stock_and_cancelling_gives_it_back(app: &TestApp) {
        let product = app.staff.product(500, 10).await;
        let reader = app.staff.customer().await;
        let place = async |quantity| {
            let answer = app.staff.post("/orders", &order(reader, &[(product, quantity)]));
            answer.expect(201).await.id("order_id")
        };
        let (sent, dropped) = (place(3).await, place(4).await);
        let status = format!("/orders/{sent}/status");
        app.staff.patch(&status, &json!({"status": "processing"})).expect(200).await;
        app.staff.patch(&status, &json!({"status": "shipped"})).expect(200).await;
        app.staff.patch(&status, &json!({"status": "delivered"})).expect(200).await;
        let cancelled = app
            .staff
            .post(&format!("/orders/{dropped}/cancel"), &json!({"reason": "too heavy"}))
            .header("prefer", "wait=30")
            .expect(200)
            .await;
        assert_eq!(cancelled.body["status"], "cancelled");
        assert_eq!(cancelled.body["refund"], "done");
        assert_eq!(cancelled.body["reason"], "too heavy");
        let late = app.staff.post(&format!("/orders/{sent}/cancel"), &json!({})).expect(409).await;
        assert_eq!(late.problem(), "illegal-transition");

        let books = app.settled().await;
        let product = &books.products[&product];
        assert_eq!((product.on_hand, product.reserved(), product.shipped), (7, 0, 3));
    }
}
