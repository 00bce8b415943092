//! Rebuilds of read models while orders arrive and queries run.

use crate::{
    app::{TestApp, eventually, ground},
    client::{Api, order},
    on_both_logs,
    program::{self, Program, output, print_of},
};
use futures::future::{join_all, join3};
use orderlog::{auth::Role, config::LogChoice};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};
use uuid::Uuid;

on_both_logs!(
    a_rebuild_is_not_noticed_and_gives_the_same_rows,
    only_a_rebuild_under_way_can_be_held_up_or_let_go_on,
    a_difference_is_accepted_without_sql,
);

/// The number of clients that place orders continuously.
const WRITERS: usize = 4;

/// The least number of orders before, during and after the rebuild.
const BATCH: usize = 40;

/// A read model's serving version, from `GET /admin/projections`.
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

/// The latest state that a reader has seen. Later reads must not be older.
#[derive(Default)]
struct Seen {
    versions: BTreeMap<String, i64>,
    orders: usize,
}

impl Seen {
    /// Reads everything once. No read may fail or be older than an earlier one.
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
                admin.post(&path, &json!({})).expect(status).await;
            }
            let path = format!("/admin/projections/orders/{wish}");
            app.staff.post(&path, &json!({})).expect(403).await;
        }
        assert_eq!(shown(&admin, "orders").await["rebuild"], Value::Null);
    }

    pub async fn a_difference_is_accepted_without_sql(app: &TestApp) {
        let admin = app.caller(Role::Admin, "operator");
        let (product, reader) = (app.staff.product(1_000, 100).await, app.staff.customer().await);
        app.staff.post("/orders", &order(reader, &[(product, 1)])).expect(201).await;
        app.caught_up().await;
        let wish = async |api: &Api, name: &str, wish: &str, status: u16| {
            let path = format!("/admin/projections/{name}/{wish}");
            api.post(&path, &json!({})).expect(status).await
        };
        for (name, status) in [("orders", 409), ("nothing", 404)] {
            wish(&admin, name, "accept", status).await;
        }
        sqlx::raw_sql("update orders_v1.orders set total = total + 1")
            .execute(app.running().pool())
            .await
            .unwrap();
        wish(&admin, "orders", "rebuild", 202).await;
        let building = async || {
            let all = admin.get("/admin/projections").expect(200).await.body;
            let mut items = all["items"].as_array()?.iter();
            items.find(|item| item["name"] == "orders" && item["version"] == 2).cloned()
        };
        eventually("it differs", async || {
            (building().await?["rebuild"]["verified"] == "different").then_some(())
        })
        .await;
        wish(&app.staff, "orders", "accept", 403).await;
        assert_eq!(building().await.unwrap()["serving"], false);
        let accepted = wish(&admin, "orders", "accept", 200).await.body;
        assert_eq!(accepted, json!({ "name": "orders", "versions": [2] }));
        eventually("it serves", async || {
            (shown(&admin, "orders").await["version"] == 2).then_some(())
        })
        .await;
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
                let answer = admin.post(&path, &json!({})).send().await;
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
            // The old version is still fed after the switch.
            eventually("both versions have the same rows", async || {
                (rows(pool, name, version - 1).await == new).then_some(())
            })
            .await;
        }
    }
}

/// Waits until the node is ready and feeds every read model that serves.
async fn nothing_is_stale(server: &Program) {
    eventually("nothing is stale", async || {
        let ready = server.staff.get("//readyz").send().await.body;
        (ready["stale"] == json!([])).then_some(())
    })
    .await;
}

/// The view of an operator when a program makes other rows than the previous one without a new
/// revision.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undeclared_change_is_told_everywhere_and_mended_by_one_command() {
    let ground = ground(LogChoice::Embedded).await;
    let server = Program::start(&ground);
    let (product, reader) = (server.staff.product(1_000, 100).await, server.staff.customer().await);
    let before = server.staff.post("/orders", &order(reader, &[(product, 1)])).expect(201).await;
    let path = format!("/orders/{}", before.id("order_id"));
    server.staff.get(&path).expect(200).await;
    nothing_is_stale(&server).await;
    assert!(server.stop().success());
    let pool = PgPool::connect_with(ground.config.database.clone().unwrap()).await.unwrap();
    let other = "update control.version set golden_digest = 'other' where projection = 'orders'";
    sqlx::raw_sql(other).execute(&pool).await.unwrap();

    let server = Program::start(&ground);
    let undeclared = "gives other rows under the same revision";
    let stale = eventually("a node that is ready says what is stale", async || {
        let ready = server.staff.get("//readyz").send().await.body;
        ready["stale"].get(0).cloned()
    })
    .await;
    assert_eq!((&stale["projection"], &stale["rebuilding"]), (&json!("orders"), &json!(false)));
    assert!(stale["reason"].as_str().unwrap().contains(undeclared), "{stale}");
    let told = print_of(&ground, &["projections"]);
    assert!(told.contains(undeclared), "{told}");
    // Existing rows are shown; new events are not applied.
    server.staff.get(&path).expect(200).await;
    let after = order(reader, &[(product, 1)]);
    let after = server.staff.post("/orders", &after).expect(201).await.id("order_id");
    let late = server.staff.get(&format!("/orders/{after}")).header("prefer", "wait=1");
    assert_eq!(late.expect(503).await.problem(), "projection-behind");
    let refused = output(&ground, &["rebuild", "orders"]);
    let told = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{told}");
    assert!(told.contains("orderlog rebuild orders --accept"), "{told}");
    let built = print_of(&ground, &["rebuild", "orders", "--accept"]);
    assert!(built.contains("version 2 of orders serves"), "{built}");
    server.staff.get(&format!("/orders/{after}")).expect(200).await;
    nothing_is_stale(&server).await;
    assert!(server.stop().success());
}

/// An upgrade without any action by the operator: the tables belong to an older program.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_upgrade_reads_say_why_they_wait_and_then_go_on() {
    let ground = ground(LogChoice::Embedded).await;
    let server = Program::start(&ground);
    let product = server.staff.product(1_000, 100).await;
    let path = format!("/products/{product}");
    server.staff.get(&path).expect(200).await;
    assert!(server.stop().success());
    let pool = PgPool::connect_with(ground.config.database.clone().unwrap()).await.unwrap();
    let older = "update control.version set fingerprint = '1-0' where projection = 'products'; \
        drop view read.products; \
        alter table products_v1.products drop column discontinued cascade; \
        create view read.products as select product_id, shown_version, name, description, \
        category, price, currency, on_hand, reserved, shipped, created_at, updated_at \
        from products_v1.products where listed";
    sqlx::raw_sql(older).execute(&pool).await.unwrap();

    let mut command = program::command(&ground, &[]);
    command.env("REBUILD_ON_UPGRADE", "false");
    let server = Program::start_as(command);
    let waits = server.staff.get(&path).expect(503).await;
    assert_eq!((waits.problem(), waits.header("retry-after")), ("unavailable", Some("30")));
    let detail = waits.body["detail"].as_str().unwrap();
    assert!(detail.contains("products must be rebuilt"), "{detail}");
    assert!(detail.contains("an older program built it (revision 1"), "{detail}");
    assert!(server.stop().success());

    // Start again with the default settings.
    let server = Program::start(&ground);
    eventually("it can be read again", async || {
        let answer = server.staff.get(&path).send().await;
        if answer.status == 503 {
            assert_eq!(
                (answer.problem(), answer.header("retry-after")),
                ("unavailable", Some("3"))
            );
        }
        (answer.status == 200).then_some(())
    })
    .await;
    nothing_is_stale(&server).await;
    assert!(server.stop().success());
}
