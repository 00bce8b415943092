//! The first-order discount is given once, at any concurrency.

use crate::{
    client::{order, order_paid_by},
    on_both_logs,
};
use futures::future::join_all;
use serde_json::json;

on_both_logs!(
    only_one_of_many_first_orders_gets_the_discount,
    a_rejected_first_order_gives_the_discount_back,
    discounts_add_up_to_a_bound,
);

mod scenario {
    use super::*;
    use crate::app::TestApp;

    pub async fn only_one_of_many_first_orders_gets_the_discount(app: &TestApp) {
        let product = app.staff.product(5_000, 100).await;
        let reader = app.staff.customer().await;
        let body = order(reader, &[(product, 1)]);
        let answers =
            join_all((0..20).map(async |_| app.staff.post("/orders", &body).expect(201).await))
                .await;
        let discounts: Vec<i64> =
            answers.iter().filter_map(|answer| answer.discount("first_order")).collect();
        assert_eq!(discounts, [1_000]);

        app.caught_up().await;
        let profile = app.staff.get(&format!("/customers/{reader}")).expect(200).await;
        assert_eq!(profile.body["order_count"], 20);
    }

    pub async fn a_rejected_first_order_gives_the_discount_back(app: &TestApp) {
        let product = app.staff.product(5_000, 1).await;
        let reader = app.staff.customer().await;
        let declined = order_paid_by(reader, &[(product, 1)], "pm_card_declined");
        let refused = app.staff.post("/orders", &declined).expect(402).await;
        assert_eq!(refused.problem(), "payment-declined");
        let short = app.staff.post("/orders", &order(reader, &[(product, 2)])).expect(409).await;
        assert_eq!(short.problem(), "insufficient-stock");
        // Reservations and payments are given back in the background.
        app.settled().await;

        let placed = app.staff.post("/orders", &order(reader, &[(product, 1)])).expect(201).await;
        assert_eq!(placed.discount("first_order"), Some(1_000));
    }

    pub async fn discounts_add_up_to_a_bound(app: &TestApp) {
        let (dear, cheap) = (app.staff.product(20_000, 9).await, app.staff.product(1_000, 9).await);
        let reader = app.staff.customer().await;
        let profile = format!("/customers/{reader}");
        app.staff.patch(&profile, &json!({"vip": true})).expect(200).await;

        // 10 % of 10.00 plus 10.00 for the first order is more than the cap of 30 %.
        let first = app.staff.post("/orders", &order(reader, &[(cheap, 1)])).expect(201).await;
        assert_eq!(first.discount("vip"), Some(100));
        assert_eq!(first.discount("first_order"), Some(1_000));
        assert_eq!(first.discount("cap"), Some(-800));
        assert_eq!(first.body["discount"]["amount"], 300);
        assert_eq!(first.body["total"]["amount"], 700);

        let second = app.staff.post("/orders", &order(reader, &[(dear, 1)])).expect(201).await;
        assert_eq!((second.discount("vip"), second.discount("volume")), (Some(2_000), Some(1_000)));
        assert_eq!(second.discount("first_order"), None);
        assert_eq!(second.body["total"]["amount"], 17_000);
    }
}
