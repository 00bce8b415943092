//! The sales report over HTTP.

use crate::{client::order, on_both_logs};
use orderlog::auth::Role;
use reqwest::Method;
use serde_json::{Value, json};

on_both_logs!(a_report_is_the_sum_over_living_confirmed_orders);

fn sum(report: &Value, field: &str) -> i64 {
    let items = report["items"].as_array().unwrap().iter();
    items.map(|item| item[field]["amount"].as_i64().or(item[field].as_i64()).unwrap()).sum()
}

mod scenario {
    use super::*;
    use crate::{app::TestApp, client::order_paid_by};

    pub async fn a_report_is_the_sum_over_living_confirmed_orders(app: &TestApp) {
        let staff = &app.staff;
        let (book, pen) = (staff.product(6_000, 100).await, staff.product(150, 100).await);
        let readers = [staff.customer().await, staff.customer().await];
        let mut orders = Vec::new();
        for (reader, lines) in [
            (readers[0], vec![(book, 2), (pen, 1)]),
            (readers[0], vec![(pen, 9)]),
            (readers[1], vec![(book, 1)]),
        ] {
            orders.push(staff.post("/orders", &order(reader, &lines)).expect(201).await);
        }
        let declined = order_paid_by(readers[1], &[(pen, 50)], "pm_card_declined");
        staff.post("/orders", &declined).expect(402).await;
        let cancelled = orders.pop().unwrap();
        let cancel = format!("/orders/{}/cancel", cancelled.id("order_id"));
        staff.call(Method::POST, &cancel).expect(200).await;
        app.settled().await;
        app.caught_up().await;

        let of = |field: &str| -> i64 {
            orders.iter().map(|order| order.body[field]["amount"].as_i64().unwrap()).sum()
        };
        for query in ["", "?bucket=hour", "?bucket=day"] {
            let report = staff.get(&format!("/reports/sales{query}")).expect(200).await.body;
            assert_eq!(report["items"].as_array().unwrap().len(), 30, "{query}");
            assert_eq!(sum(&report, "orders"), 2);
            assert_eq!(sum(&report, "revenue"), of("total"));
            assert_eq!(sum(&report, "discounts"), of("discount"));
            let best = json!([
                {"product_id": pen, "name": "A book", "units": 10},
                {"product_id": book, "name": "A book", "units": 2},
            ]);
            assert_eq!(report["best_sellers"], best);
        }
        let past = "?from=2020-01-01T00:00:00Z&to=2020-01-02T00:00:00Z&bucket=hour";
        let past = staff.get(&format!("/reports/sales{past}")).expect(200).await.body;
        assert_eq!((sum(&past, "orders"), &past["best_sellers"]), (0, &json!([])));
        assert_eq!(past["items"].as_array().unwrap().len(), 24);

        for query in ["?bucket=week", "?from=2020-01-01T00:00:00Z", "?to=now", "?until=1"] {
            let refused = staff.get(&format!("/reports/sales{query}")).expect(400).await;
            assert_eq!(refused.problem(), "invalid-parameter", "{query}");
        }
        let reader = app.caller(Role::Customer, &readers[0].to_string());
        reader.get("/reports/sales").expect(403).await;
        staff.anonymous().get("/reports/sales").expect(401).await;
    }
}
