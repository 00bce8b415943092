//! Stripe's notifications, which only make the program look up the payment.

use super::{
    FAR, Paid, SECRET_KEY, WEBHOOK_SECRET, event, on_both_logs,
    stripe::{Fault, Step},
};
use crate::{app, client::Api};
use chrono::TimeDelta;
use commands::gateway::stripe::webhook::sign;
use events::{Environment, environment::System};
use serde_json::json;

on_both_logs!(FAR;
    a_slow_payment_is_confirmed_by_its_notice,
    notices_twice_late_and_out_of_order_change_nothing,
    a_word_that_stripe_breaks_is_made_good,
);

mod scenario {
    use super::*;

    pub async fn a_slow_payment_is_confirmed_by_its_notice(shop: &Paid) {
        let order = shop.order_pending("pm_card_slow").await;
        let payment = shop.payment(order).await;
        shop.stripe.reaches(&payment, "processing").await;
        let early = shop.notify(&event("payment_intent.processing", &payment)).await;
        assert_eq!((early.status, &early.body["result"]), (200, &json!("open")));

        shop.stripe.finish(&payment, true);
        let told = shop.notify(&event("payment_intent.succeeded", &payment)).await;
        assert_eq!((told.status, &told.body["result"]), (200, &json!("recorded")));
        // The result is in the log before the notification is answered.
        let shown = shop.shows(order, "status", "confirmed").await;
        assert_eq!(shown.body["payment_id"], payment.as_str());

        let declined = shop.order_pending("pm_card_slow").await;
        let payment = shop.payment(declined).await;
        shop.stripe.reaches(&payment, "processing").await;
        shop.stripe.finish(&payment, false);
        let told = shop.notify(&event("payment_intent.payment_failed", &payment)).await;
        assert_eq!(told.status, 200);
        let shown = shop.shows(declined, "status", "rejected").await;
        assert_eq!(shown.body["reason"], "payment-declined");
        shop.stripe.reaches(&payment, "canceled").await;
    }

    pub async fn notices_twice_late_and_out_of_order_change_nothing(shop: &Paid) {
        let order = shop.order("pm_card_visa").expect(201).await.id("order_id");
        let payment = shop.payment(order).await;
        shop.app.settled().await;
        let before = shop.app.events_in_log().await;
        let ours = event("payment_intent.succeeded", &payment);
        for notice in [
            ours.clone(),
            ours,
            event("payment_intent.canceled", &payment),
            event("payment_intent.created", &payment),
            event("a.type.of.tomorrow", &payment),
            event("payment_intent.succeeded", "pi_of_another_shop"),
            json!({"type": "customer.created", "data": {"object": {"object": "customer"}}}),
            json!({"type": "refund.failed", "data": {"object": {
                "object": "refund", "id": "re_1", "payment_intent": payment}}}),
            json!([]),
        ] {
            let answer = shop.notify(&notice).await;
            assert_eq!(answer.status, 200, "{notice}");
        }
        assert_eq!(shop.app.events_in_log().await, before);
        // The order has changed since, and the notification of its payment arrives again.
        shop.cancel(order).await;
        shop.app.settled().await;
        let again = shop.notify(&event("payment_intent.succeeded", &payment)).await;
        assert_eq!(again.status, 200);
        shop.app.settled().await;
        assert_eq!((shop.stripe.movements("captured"), shop.stripe.movements("refunded")), (1, 1));
    }

    /// A payment that was cancelled but is captured anyway.
    pub async fn a_word_that_stripe_breaks_is_made_good(shop: &Paid) {
        shop.stripe.fails(Step::Confirm, &[Fault::Refuses; 8]);
        let order = shop.order_pending("pm_card_visa").await;
        let payment = shop.payment_logged(order).await;
        shop.cancel(order).await;
        shop.app.settled().await;
        assert_eq!(shop.stripe.status(&payment), "canceled");

        shop.stripe.finish(&payment, true);
        let told = shop.notify(&event("payment_intent.succeeded", &payment)).await;
        assert_eq!((told.status, &told.body["result"]), (200, &json!("recorded")));
        shop.stripe.moved("refunded", 1).await;
    }
}

/// A forged or old notification gets a 400, and the program does not look up the payment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notice_without_a_valid_signature_is_refused() {
    super::on_embedded(FAR, async |shop| {
        let order = shop.order("pm_card_visa").expect(201).await.id("order_id");
        let body = event("payment_intent.succeeded", &shop.payment(order).await).to_string();
        let (now, asked) = (System::new().now(), shop.stripe.asked());
        let signed = |secret: &str, seconds| {
            sign(&secret.into(), body.as_bytes(), now + TimeDelta::seconds(seconds))
        };
        for header in [
            signed("whsec_other", 0),
            signed(SECRET_KEY, 0),
            signed(WEBHOOK_SECRET, -400),
            signed(WEBHOOK_SECRET, 400),
            sign(&WEBHOOK_SECRET.into(), b"{}", now),
            "t=1,v1=x".to_owned(),
            String::new(),
        ] {
            let refused = shop.notice(&body).header("stripe-signature", &header).expect(400).await;
            assert_eq!(refused.problem(), "invalid-signature", "{header}");
        }
        let refused = shop.notice(&body).expect(400).await;
        assert_eq!(refused.problem(), "invalid-signature");
        assert_eq!(shop.stripe.asked(), asked, "a forged notification caused a lookup");

        let large = "x".repeat(600_000);
        shop.notice(&large).expect(413).await;
        let good = shop.notice(&body).header("stripe-signature", signed(WEBHOOK_SECRET, 0));
        good.expect(200).await;
    })
    .await;
}

/// While Stripe's API does not answer, the program asks Stripe to send the notification again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notice_that_cannot_be_followed_is_sent_again() {
    super::on_embedded(FAR, async |shop| {
        let order = shop.order("pm_card_visa").expect(201).await.id("order_id");
        let notice = event("payment_intent.succeeded", &shop.payment(order).await);
        shop.stripe.set_down(true);
        let later = shop.notify(&notice).await;
        assert_eq!((later.status, later.problem()), (503, "unavailable"));
        assert!(later.header("retry-after").is_some());
        shop.stripe.set_down(false);
        assert_eq!(shop.notify(&notice).await.status, 200);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sandbox_takes_no_notices() {
    app::on_embedded(async |app| {
        let anyone: Api = app.staff.anonymous();
        let notice = event("payment_intent.succeeded", "pi_1");
        let answer = anyone.post("/payments/webhook", &notice).expect(404).await;
        assert_eq!(answer.problem(), "not-found");
    })
    .await;
}
