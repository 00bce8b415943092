//! The catalogue: what is sold, and what is sold no longer.

use crate::{
    client::{Api, order},
    on_both_logs,
};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

on_both_logs!(a_discontinued_product_is_sold_no_more_and_its_orders_go_on);

async fn listed(api: &Api) -> Vec<Uuid> {
    let page = api.get("/products?limit=200").expect(200).await;
    let id = |item: &Value| item["product_id"].as_str().unwrap().parse().unwrap();
    page.body["items"].as_array().unwrap().iter().map(id).collect()
}

mod scenario {
    use super::*;
    use crate::app::TestApp;

    pub async fn a_discontinued_product_is_sold_no_more_and_its_orders_go_on(app: &TestApp) {
        let staff = &app.staff;
        let (kept, product) = (staff.product(500, 10).await, staff.product(900, 10).await);
        let reader = staff.customer().await;
        let mut orders = Vec::new();
        for _ in 0..2 {
            let placed = staff.post("/orders", &order(reader, &[(product, 2)])).expect(201).await;
            orders.push(placed.id("order_id"));
        }
        let path = format!("/products/{product}");
        let delete = || staff.call(Method::DELETE, &path);
        staff.anonymous().call(Method::DELETE, &path).expect(401).await;
        delete().header("if-match", "\"1\"").expect(412).await;
        let first = delete().key("end of it").expect(200).await;
        assert_eq!(first.body["discontinued"], true);
        let again = delete().expect(200).await;
        assert_eq!((&again.body, again.header("etag")), (&first.body, first.header("etag")));
        let replayed = delete().key("end of it").expect(200).await;
        assert_eq!(replayed.header("idempotency-replayed"), Some("true"));
        assert_eq!(replayed.body, first.body);
        let unknown = format!("/products/{}", Uuid::nil());
        staff.call(Method::DELETE, &unknown).expect(404).await;

        let refused = staff.post("/orders", &order(reader, &[(kept, 1), (product, 1)]));
        let refused = refused.expect(404).await;
        assert_eq!(refused.problem(), "product-not-found");
        assert_eq!(refused.id("product_id"), product);
        let stock = json!({"quantity": -1, "reason": "correction"});
        staff.post(&format!("{path}/stock"), &stock).expect(200).await;
        let described = staff.patch(&path, &json!({"name": "A late book"})).expect(200).await;
        assert_eq!(described.body["discontinued"], true);

        let cancel = format!("/orders/{}/cancel", orders[0]);
        staff.call(Method::POST, &cancel).expect(200).await;
        for status in ["processing", "shipped"] {
            let path = format!("/orders/{}/status", orders[1]);
            staff.patch(&path, &json!({"status": status})).expect(200).await;
        }
        app.settled().await;
        app.caught_up().await;
        let shown = staff.anonymous().get(&path).expect(200).await.body;
        assert_eq!(shown["discontinued"], true);
        assert_eq!([&shown["on_hand"], &shown["reserved"], &shown["shipped"]], [7, 0, 2]);
        let sold = listed(staff).await;
        assert!(sold.contains(&kept) && !sold.contains(&product));
        let old = staff.get(&format!("/orders/{}", orders[1])).expect(200).await.body;
        assert_eq!(old["items"][0]["name"], "A book");
    }
}
