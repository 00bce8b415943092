//! Money is taken once and refunded once, even if requests or answers are lost.

use super::{
    FAR, Paid, on_both_logs,
    stripe::{Fault, Step},
};

on_both_logs!(FAR;
    orders_are_paid_and_given_back,
    a_declined_payment_is_a_402_and_can_never_be_taken,
    a_lost_answer_moves_money_once,
    a_fault_that_stripe_remembers_is_got_over,
    keys_that_stripe_has_forgotten_move_nothing_twice,
);

mod scenario {
    use super::*;

    pub async fn orders_are_paid_and_given_back(shop: &Paid) {
        let order = shop.order("pm_card_visa").expect(201).await;
        assert_eq!(order.body["status"], "confirmed");
        let id = order.id("order_id");
        let payment = shop.payment(id).await;
        assert_eq!(order.body["payment_id"], payment.as_str());
        assert_eq!(shop.stripe.status(&payment), "succeeded");

        let path = format!("/orders/{id}/cancel");
        let cancel = shop.app.staff.post(&path, &serde_json::json!({}));
        let cancelled = cancel.header("prefer", "wait=60").expect(200).await;
        assert_eq!(cancelled.body["refund"], "done");
        assert_eq!((shop.stripe.movements("captured"), shop.stripe.movements("refunded")), (1, 1));
    }

    pub async fn a_declined_payment_is_a_402_and_can_never_be_taken(shop: &Paid) {
        for (method, word) in [
            ("pm_card_chargeDeclinedInsufficientFunds", "insufficient_funds"),
            // The customer must not learn that the card is stolen.
            ("pm_card_chargeDeclinedStolenCard", "card_declined"),
            ("pm_card_authenticationRequired", "authentication_required"),
            ("pm_card_asks", "authentication_required"),
        ] {
            let refused = shop.order(method).expect(402).await;
            assert_eq!(refused.problem(), "payment-declined");
            assert_eq!(refused.body["decline_code"], word, "{method}");
            let payment = shop.payment(refused.id("order_id")).await;
            assert_eq!(shop.stripe.status(&payment), "canceled");
        }
        // A payment that Stripe refuses to create.
        let refused = shop.order("tok_unknown").expect(402).await;
        assert_eq!(refused.body["decline_code"], "resource_missing");
        assert_eq!(shop.stripe.payment_of(refused.id("order_id")), None);
        assert_eq!(shop.stripe.movements("captured"), 0);
        let book = shop.app.settled().await;
        assert_eq!(book.products[&shop.book].reserved(), 0);
    }

    /// Each step loses its answer once and is rate-limited once.
    pub async fn a_lost_answer_moves_money_once(shop: &Paid) {
        for step in [Step::Create, Step::Confirm, Step::Cancel, Step::Refund] {
            shop.stripe.fails(step, &[Fault::Refuses, Fault::LosesAnswer]);
        }
        let order = shop.order("pm_card_visa").header("prefer", "wait=60").expect(201).await;
        let id = order.id("order_id");
        shop.cancel(id).await;
        let refused = shop.order("pm_card_declined").header("prefer", "wait=60").expect(402).await;
        // Stripe no longer knows the reason, and the answer with the reason was lost.
        assert_eq!(refused.body["decline_code"], "card_declined");
        shop.app.settled().await;
        assert_eq!((shop.stripe.movements("captured"), shop.stripe.movements("refunded")), (1, 1));
        assert_eq!(shop.stripe.movements("created"), 2);
    }

    pub async fn a_fault_that_stripe_remembers_is_got_over(shop: &Paid) {
        for step in [Step::Create, Step::Confirm, Step::Refund] {
            shop.stripe.fails(step, &[Fault::Breaks, Fault::BreaksAfter]);
        }
        let order = shop.order("pm_card_visa").header("prefer", "wait=60").expect(201).await;
        shop.cancel(order.id("order_id")).await;
        shop.app.settled().await;
        assert_eq!((shop.stripe.movements("captured"), shop.stripe.movements("refunded")), (1, 1));
    }

    /// The answers are lost, and a day passes before the next try.
    pub async fn keys_that_stripe_has_forgotten_move_nothing_twice(shop: &Paid) {
        shop.stripe.fails(Step::Confirm, &[Fault::LosesAnswer]);
        let order = shop.order_pending("pm_card_visa").await;
        let payment = shop.payment(order).await;
        shop.stripe.reaches(&payment, "succeeded").await;
        shop.stripe.forget_keys();
        shop.shows(order, "status", "confirmed").await;

        shop.stripe.fails(Step::Refund, &[Fault::LosesAnswer]);
        shop.cancel(order).await;
        shop.stripe.moved("refunded", 1).await;
        shop.stripe.forget_keys();
        let books = shop.app.settled().await;
        assert!(books.orders[&order].is_dead());
        assert_eq!((shop.stripe.movements("captured"), shop.stripe.movements("refunded")), (1, 1));
    }
}
