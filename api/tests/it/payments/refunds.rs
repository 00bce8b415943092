//! Refunds that meet others' refunds, are refused, or fail later.

use super::{FAR, Paid, on_both_logs};
use crate::app::eventually;
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

on_both_logs!(
    FAR;
    what_is_left_of_a_payment_goes_back,
    a_refund_that_is_refused_is_shown_and_waits_for_a_person,
    a_refund_that_fails_later_is_made_again,
    a_refund_that_fails_at_once_is_made_again_a_few_times,
    a_payment_that_was_altered_at_the_gateway_confirms_nothing,
    a_balance_that_is_too_low_holds_up_no_other_order,
    a_payment_of_another_account_waits_for_a_person_and_holds_up_nobody,
    a_payment_of_which_only_a_part_was_taken_confirms_nothing,
);

impl Paid {
    async fn paid_order(&self) -> (Uuid, String) {
        let order = self.order("pm_card_visa").expect(201).await.id("order_id");
        (order, self.payment(order).await)
    }

    async fn types(&self, order: Uuid) -> Vec<String> {
        let history = self.app.staff.get(&format!("/orders/{order}/history")).expect(200).await;
        let items = history.body["items"].as_array().unwrap().clone();
        items.iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect()
    }

    /// How many refunds of an order were made, and how many failed.
    async fn refunds(&self, order: Uuid) -> (usize, usize) {
        let types = self.types(order).await;
        let count = |name: &str| types.iter().filter(|it| *it == name).count();
        (count("RefundIssued"), count("RefundFailed"))
    }

    async fn notify_about(&self, kind: &str, object: &str, payment: &str) {
        let notice = json!({"type": kind, "data": {"object": {
            "object": object, "id": "x_1", "payment_intent": payment}}});
        assert_eq!(self.notify(&notice).await.status, 200);
    }
}

mod scenario {
    use super::*;

    pub async fn what_is_left_of_a_payment_goes_back(shop: &Paid) {
        let (order, payment) = shop.paid_order().await;
        shop.stripe.refund_by_hand(&payment, 100);
        shop.cancel(order).await;
        shop.shows(order, "refund", "done").await;
        let (taken, given_back) = shop.stripe.amounts(&payment);
        assert_eq!(given_back, taken);
    }

    pub async fn a_refund_that_is_refused_is_shown_and_waits_for_a_person(shop: &Paid) {
        let (order, payment) = shop.paid_order().await;
        shop.stripe.refuse_refunds(Some("charge_disputed"));
        shop.cancel(order).await;
        shop.shows(order, "refund", "failed").await;
        // It is not tried again, and says nothing about the gateway.
        let asked = shop.stripe.asked();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(shop.stripe.asked(), asked);
        shop.order("pm_card_visa").expect(201).await;

        let (taken, _) = shop.stripe.amounts(&payment);
        shop.stripe.refund_by_hand(&payment, taken);
        shop.notify_about("charge.refunded", "charge", &payment).await;
        shop.shows(order, "refund", "done").await;
    }

    pub async fn a_refund_that_fails_later_is_made_again(shop: &Paid) {
        let (order, payment) = shop.paid_order().await;
        shop.cancel(order).await;
        shop.shows(order, "refund", "done").await;
        shop.app.settled().await;
        shop.stripe.fail_refund(&payment);
        shop.notify_about("refund.failed", "refund", &payment).await;
        eventually("it is refunded again", async || {
            (shop.refunds(order).await == (2, 1)).then_some(())
        })
        .await;
        // The same notice again, late.
        shop.notify_about("refund.failed", "refund", &payment).await;
        shop.app.settled().await;
        assert_eq!(shop.refunds(order).await, (2, 1));
        shop.shows(order, "refund", "done").await;
        let (taken, given_back) = shop.stripe.amounts(&payment);
        assert_eq!(given_back, taken);
    }

    pub async fn a_refund_that_fails_at_once_is_made_again_a_few_times(shop: &Paid) {
        let (order, payment) = shop.paid_order().await;
        shop.stripe.fail_refunds(1);
        shop.cancel(order).await;
        eventually("it is refunded again", async || {
            (shop.refunds(order).await == (2, 1)).then_some(())
        })
        .await;
        shop.shows(order, "refund", "done").await;
        let (taken, given_back) = shop.stripe.amounts(&payment);
        assert_eq!(given_back, taken);

        let (order, payment) = shop.paid_order().await;
        shop.stripe.fail_refunds(10);
        shop.cancel(order).await;
        eventually("it is given up", async || (shop.refunds(order).await == (3, 3)).then_some(()))
            .await;
        shop.shows(order, "refund", "failed").await;
        let (taken, _) = shop.stripe.amounts(&payment);
        shop.stripe.refund_by_hand(&payment, taken);
        shop.notify_about("charge.refunded", "charge", &payment).await;
        shop.shows(order, "refund", "done").await;
    }

    pub async fn a_balance_that_is_too_low_holds_up_no_other_order(shop: &Paid) {
        shop.stripe.refuse_refunds(Some("insufficient_balance_for_refund"));
        let mut orders = Vec::new();
        // More failures in a row than trip the breaker.
        for _ in 0..25 {
            orders.push(shop.order("pm_card_visa").expect(201).await.id("order_id"));
        }
        let asked = shop.stripe.asked();
        for order in &orders {
            shop.cancel(*order).await;
        }
        eventually("each refund is asked for", async || {
            (shop.stripe.asked() >= asked + 3 * 25).then_some(())
        })
        .await;
        shop.order("pm_card_visa").expect(201).await;
        for order in &orders {
            shop.shows(*order, "refund", "pending").await;
        }
        shop.stripe.refuse_refunds(None);
        for order in &orders {
            shop.shows(*order, "refund", "done").await;
        }
    }

    pub async fn a_payment_of_another_account_waits_for_a_person_and_holds_up_nobody(shop: &Paid) {
        let mut orders = Vec::new();
        for _ in 0..25 {
            orders.push(shop.paid_order().await);
        }
        shop.stripe.forget(true);
        for (order, _) in &orders {
            shop.cancel(*order).await;
            shop.shows(*order, "refund", "failed").await;
        }
        shop.stripe.forget(false);
        shop.order("pm_card_visa").expect(201).await;
        for (order, payment) in &orders {
            let (taken, _) = shop.stripe.amounts(payment);
            shop.stripe.refund_by_hand(payment, taken);
            shop.notify_about("charge.refunded", "charge", payment).await;
            shop.shows(*order, "refund", "done").await;
        }
    }

    pub async fn a_payment_that_was_altered_at_the_gateway_confirms_nothing(shop: &Paid) {
        for (less, currency) in [(500, "gbp"), (0, "usd")] {
            shop.stripe.alter(less, currency);
            let declined = shop.order("pm_card_visa").expect(402).await;
            assert_eq!(declined.body["decline_code"], "amount_received");
            shop.app.settled().await;
        }
        assert_eq!(shop.stripe.movements("refunded"), 2);
    }

    pub async fn a_payment_of_which_only_a_part_was_taken_confirms_nothing(shop: &Paid) {
        shop.stripe.take_less(100);
        let declined = shop.order("pm_card_visa").expect(402).await;
        assert_eq!(declined.body["decline_code"], "amount_received");
        shop.app.settled().await;
        assert_eq!(shop.stripe.movements("refunded"), 1);
    }
}
