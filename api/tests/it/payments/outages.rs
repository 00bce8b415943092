//! An unreachable gateway rejects no orders, and money that is captured too late is refunded.

use super::{
    FAR, Paid, on_both_logs,
    stripe::{Fault, Step},
};
use futures::future::join_all;
use serde_json::json;
use std::time::Duration;

on_both_logs!(FAR;
    a_dead_gateway_leaves_orders_pending_and_they_are_confirmed_later,
    money_taken_after_a_cancel_goes_back,
    a_cancel_that_comes_first_lets_no_money_move,
);

/// More failures than the breaker needs to trip.
const MANY: usize = 24;

async fn metric(shop: &Paid, name: &str) -> f64 {
    let metrics = shop.app.staff.get("//metrics").expect(200).await.body;
    let lines = metrics.as_str().unwrap().lines();
    lines
        .filter(|line| line.starts_with(name))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

mod scenario {
    use super::*;

    pub async fn a_dead_gateway_leaves_orders_pending_and_they_are_confirmed_later(shop: &Paid) {
        shop.stripe.set_down(true);
        let orders = (0..MANY).map(async |_| {
            let placed = shop.order("pm_card_visa").header("prefer", "wait=1").expect(202).await;
            assert_eq!(placed.body["status"], "pending");
            placed.id("order_id")
        });
        let orders = join_all(orders).await;
        // All tests in this process share the metrics, so their values can only grow.
        crate::app::eventually("the breaker trips", async || {
            let opened =
                metric(shop, "orderlog_breaker_opened_total{of=\"payment gateway\"}").await;
            let turned_away =
                metric(shop, "orderlog_breaker_turned_away_total{of=\"payment gateway\"}").await;
            (opened >= 1.0 && turned_away >= 1.0).then_some(())
        })
        .await;
        // Commands that do not need the gateway still work.
        shop.app.staff.product(100, 1).await;

        shop.stripe.set_down(false);
        for order in orders {
            shop.shows(order, "status", "confirmed").await;
        }
        assert_eq!(shop.stripe.movements("captured"), MANY);
        assert!(metric(shop, "orderlog_gateway_call_seconds_count").await >= 1.0);
    }

    pub async fn money_taken_after_a_cancel_goes_back(shop: &Paid) {
        shop.stripe.hold(Step::Confirm);
        let order = shop.order_pending("pm_card_visa").await;
        shop.stripe.holds(Step::Confirm).await;
        let cancelled = shop.cancel(order).await;
        assert_eq!(
            (&cancelled.body["status"], &cancelled.body["refund"]),
            (&json!("cancelled"), &json!("pending"))
        );
        shop.stripe.release(Step::Confirm);
        shop.stripe.moved("refunded", 1).await;
        shop.app.settled().await;
        assert_eq!(shop.stripe.movements("captured"), 1);
    }

    pub async fn a_cancel_that_comes_first_lets_no_money_move(shop: &Paid) {
        shop.stripe.set_down(true);
        let order = shop.order_pending("pm_card_visa").await;
        shop.cancel(order).await;
        shop.stripe.set_down(false);
        shop.app.settled().await;
        assert_eq!(shop.stripe.movements("captured"), 0);

        shop.stripe.fails(Step::Confirm, &[Fault::Refuses; 6]);
        let order = shop.order_pending("pm_card_visa").await;
        let payment = shop.payment_logged(order).await;
        shop.cancel(order).await;
        shop.app.settled().await;
        assert_eq!(shop.stripe.status(&payment), "canceled");
        assert_eq!(shop.stripe.movements("captured"), 0);
    }
}

mod too_late {
    use super::*;

    on_both_logs!(Duration::from_secs(2);
        money_taken_after_the_deadline_goes_back,
    );

    mod scenario {
        use super::*;

        pub async fn money_taken_after_the_deadline_goes_back(shop: &Paid) {
            let order = shop.order_pending("pm_card_slow").await;
            let payment = shop.payment(order).await;
            shop.stripe.reaches(&payment, "processing").await;
            let expired = shop.shows(order, "status", "rejected").await;
            assert_eq!(expired.body["reason"], "expired");
            // Its stock is available again although its payment is still in progress.
            crate::app::eventually("the stock is free", async || {
                let path = format!("/products/{}", shop.book);
                let book = shop.app.staff.get(&path).expect(200).await.body;
                (book["reserved"] == 0 && book["available"] == 100).then_some(())
            })
            .await;

            shop.stripe.finish(&payment, true);
            shop.stripe.moved("refunded", 1).await;
            shop.app.settled().await;
            assert_eq!(shop.stripe.movements("captured"), 1);
        }
    }
}
