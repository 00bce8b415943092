//! A row that the database refuses parks one order, and the shop continues.

use crate::{
    app::{TestApp, eventually},
    client::order,
    on_both_logs,
};
use orderlog::auth::Role;
use serde_json::json;

on_both_logs!(a_parked_order_says_so_until_it_is_drained);

mod scenario {
    use super::*;

    pub async fn a_parked_order_says_so_until_it_is_drained(app: &TestApp) {
        let (api, pool) = (&app.staff, app.running().pool());
        let admin = app.caller(Role::Admin, "operator");
        let (product, customer) = (api.product(500, 1_000).await, api.customer().await);
        let mut orders = Vec::new();
        for _ in 0..6 {
            let placed = api.post("/orders", &order(customer, &[(product, 1)])).expect(201).await;
            orders.push(placed.body["order_id"].as_str().unwrap().to_owned());
        }
        let (poisoned, path) = (&orders[2], format!("/orders/{}", orders[2]));
        let refuse = format!(
            "alter table orders_v1.orders add constraint planted \
             check (order_id <> '{poisoned}' or status <> 'shipped')"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(refuse)).execute(pool).await.unwrap();
        for id in &orders {
            let status = json!({ "status": "shipped" });
            api.patch(&format!("/orders/{id}/status"), &status).expect(200).await;
        }
        app.caught_up().await;

        let answer = api.get(&path).expect(503).await;
        assert_eq!(answer.problem(), "projection-parked");
        assert_eq!(answer.body["stream"], format!("order-{poisoned}"));
        assert_eq!(
            api.get(&format!("{path}/history")).expect(503).await.problem(),
            "projection-parked"
        );
        for id in orders.iter().filter(|id| *id != poisoned) {
            let body = api.get(&format!("/orders/{id}")).expect(200).await.body;
            assert_eq!(body["status"], "shipped");
        }
        let list = api.get("/orders").expect(200).await.body;
        let listed = list["items"].as_array().unwrap();
        let stale = listed.iter().find(|item| item["order_id"] == poisoned.as_str()).unwrap();
        assert_eq!(stale["status"], "confirmed");

        let parked = admin.get("/admin/parked?limit=1").expect(200).await.body;
        let item = &parked["items"][0];
        assert_eq!((&item["projection"], &item["serving"]), (&json!("orders"), &json!(true)));
        assert!(item["reason"].as_str().unwrap().contains("planted"), "{item}");
        assert_eq!(parked["next_cursor"], json!(null));
        eventually("readiness tells", async || {
            let ready = api.ready().await?;
            (ready["parked"] == json!({ "orders": 1 })).then_some(())
        })
        .await;
        let versions = admin.get("/admin/projections").expect(200).await.body;
        let items = versions["items"].as_array().unwrap();
        let of_orders = items.iter().find(|item| item["name"] == "orders").unwrap();
        assert_eq!(
            (&of_orders["parked_streams"], &of_orders["state"]),
            (&json!(1), &json!("live"))
        );
        assert_eq!(of_orders["lag_events"], of_orders["parked_events"]);
        eventually("the metric tells", async || {
            let body = api.get("//metrics").send().await.body;
            let shown = "projection_parked_streams{projection=\"orders\"} 1";
            body.as_str()?.contains(shown).then_some(())
        })
        .await;

        let retry = format!("/admin/parked/order-{poisoned}/retry");
        api.post(&retry, &json!({})).expect(403).await;
        let again = admin.post(&retry, &json!({})).expect(200).await.body;
        assert_eq!(again["items"][0]["outcome"], "parked");
        let status = json!({ "status": "delivered" });
        api.patch(&format!("{path}/status"), &status).expect(200).await;
        sqlx::query("alter table orders_v1.orders drop constraint planted")
            .execute(pool)
            .await
            .unwrap();
        let drained = admin.post(&retry, &json!({})).expect(200).await.body;
        assert_eq!(drained["items"][0]["outcome"], "drained");
        admin.post(&retry, &json!({})).expect(404).await;
        app.caught_up().await;
        assert_eq!(api.get(&path).expect(200).await.body["status"], "delivered");
        assert_eq!(admin.get("/admin/parked").expect(200).await.body["items"], json!([]));
    }
}
