//! A read model is built anew while orders arrive and queries go on.

use crate::{
    app::{TestApp, eventually},
    client::{Api, order},
    on_both_logs,
};
use futures::future::{join_all, join3};
use orderlog::auth::Role;
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};
use uuid::Uuid;

on_both_logs!(
    a_rebuild_is_not_noticed_and_gives_the_same_rows,
    only_a_rebuild_under_way_can_be_held_up_or_let_go_on,
);

/// Clients that place orders all the while.
const WRITERS: usize = 4;

/// Orders placed before, during and after at least.
const BATCH: usize = 40;

/// What `GET /admin/projections` says of a read model.
async fn shown(admin: &Api, name: &str) -> Value {
    let all = admin.get("/admin/projections").expect(200).await.body;
    let items = all["items"].as_array().unwrap();
    let serving = items.iter().find(|item| item["name"] == name && item["serving"] == true);
    serving.unwrap_or_else(|| panic!("{name} does not serve: {all}")).clone()
}

async fn rows(pool: &PgPool, name: &str, version: i64) -> Vec<String> {
    let sql = format!("select t::text from {name}_v{version}.{name} t order by 1");
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(pool).await.unwrap()
}

/// What a reader has seen must not be taken back.
#[derive(Default)]
struct Seen {
    versions: BTreeMap<String, i64>,
    orders: usize,
}

impl Seen {
    /// Looks once at everything: nothing fails, nothing goes back.
    async fn look(&mut self, api: &Api, product: Uuid) {
        let list = api.get("/orders?limit=200").expect(200).await.body;
        let items = list["items"].as_array().unwrap();
        assert!(items.len() >= self.orders.min(200), "the list of orders got shorter");
        self.orders = items.len();
        for item in items {
            self.see(&item["order_id"], item);
        }
        let body = api.get(&format!("/products/{product}")).expect(200).await.body;
        self.see(&body["product_id"], &body);
    }

    fn see(&mut self, id: &Value, body: &Value) {
        let version = body["version"].as_i64().unwrap();
        let before = self.versions.insert(id.to_string(), version).unwrap_or_default();
        assert!(version >= before, "{id} went back from {before} to {version}");
    }
}

mod scenario {
    use super::*;

    pub async fn only_a_rebuild_under_way_can_be_held_up_or_let_go_on(app: &TestApp) {
        let admin = app.caller(Role::Admin, "operator");
        for wish in ["pause", "resume"] {
            for (name, status) in [("orders", 409), ("nothing", 404)] {
                let path = format!("/admin/projections/{name}/{wish}");
                admin.post(&path, &serde_json::json!({})).expect(status).await;
            }
            let path = format!("/admin/projections/orders/{wish}");
            app.staff.post(&path, &serde_json::json!({})).expect(403).await;
        }
        assert_eq!(shown(&admin, "orders").await["rebuild"], Value::Null);
    }

    pub async fn a_rebuild_is_not_noticed_and_gives_the_same_rows(app: &TestApp) {
        let admin = app.caller(Role::Admin, "operator");
        let product = app.staff.product(1_000, 100_000).await;
        let reader = app.staff.customer().await;
        let (placed, done) = (AtomicUsize::new(0), AtomicBool::new(false));
        let writing = join_all((0..WRITERS).map(async |_| {
            while !done.load(Ordering::Relaxed) {
                let body = order(reader, &[(product, 1)]);
                app.staff.post("/orders", &body).expect(201).await;
                placed.fetch_add(1, Ordering::Relaxed);
            }
        }));
        let reading = async {
            let mut seen = Seen::default();
            while !done.load(Ordering::Relaxed) {
                seen.look(&app.staff, product).await;
            }
        };
        let rebuilding = async {
            let more = async || {
                let goal = placed.load(Ordering::Relaxed) + BATCH;
                eventually("orders are placed", async || {
                    (placed.load(Ordering::Relaxed) >= goal).then_some(())
                })
                .await;
            };
            more().await;
            for name in ["orders", "products"] {
                let before = shown(&admin, name).await["version"].as_i64().unwrap();
                let path = format!("/admin/projections/{name}/rebuild");
                let answer = admin.post(&path, &serde_json::json!({})).send().await;
                assert!([200, 202].contains(&answer.status), "{:?}", answer.body);
                eventually("the new version serves", async || {
                    (shown(&admin, name).await["version"].as_i64()? > before).then_some(())
                })
                .await;
                more().await;
            }
            done.store(true, Ordering::Relaxed);
        };
        join3(writing, reading, rebuilding).await;

        let pool = app.running().pool();
        app.settled().await;
        app.caught_up().await;
        for name in ["orders", "products"] {
            let version = shown(&admin, name).await["version"].as_i64().unwrap();
            let new = rows(pool, name, version).await;
            assert!(!new.is_empty());
            // The old version is fed on, behind the one that serves.
            eventually("both versions have the same rows", async || {
                (rows(pool, name, version - 1).await == new).then_some(())
            })
            .await;
        }
    }
}
