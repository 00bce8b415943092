//! Reads as of a past time, the audit of read models, and the recovery from their loss.

use crate::{
    app::{TestApp, eventually, ground},
    client::order,
    on_both_logs,
    program::{Orphan, Program, output, print_of},
};
use orderlog::{auth::Role, config::LogChoice};
use projections::ReadModel;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};

on_both_logs!(an_order_and_a_product_are_shown_as_they_were);

mod scenario {
    use super::*;

    pub async fn an_order_and_a_product_are_shown_as_they_were(app: &TestApp) {
        let api = &app.staff;
        let (product, customer) = (api.product(500, 100).await, api.customer().await);
        let placed = api.post("/orders", &order(customer, &[(product, 3)])).expect(201).await;
        let path = format!("/orders/{}", placed.id("order_id"));
        let then = placed.header("log-position").unwrap().to_owned();
        let before = api.get(&path).header("min-log-position", &then).expect(200).await;
        for status in ["processing", "shipped", "delivered"] {
            let body = json!({ "status": status });
            api.patch(&format!("{path}/status"), &body).expect(200).await;
        }
        let stock = json!({ "quantity": 50, "reason": "received" });
        api.post(&format!("/products/{product}/stock"), &stock).expect(200).await;

        // A read as of then gives the same body and version as the read at that time.
        let as_of = |path: &str, moment: &str| api.get(&format!("{path}?as_of={moment}"));
        let past = as_of(&path, &then).expect(200).await;
        assert_eq!(past.body, before.body);
        assert_eq!(past.header("etag"), before.header("etag"));
        assert!(past.header("log-position").is_some());
        as_of(&path, &then)
            .header("if-none-match", before.header("etag").unwrap())
            .expect(304)
            .await;
        let time = before.body["updated_at"].as_str().unwrap();
        assert_eq!(as_of(&path, time).expect(200).await.body, before.body);
        let now = api.get(&path).expect(200).await.body;
        assert_eq!(now["status"], "delivered");
        let late = now["updated_at"].as_str().unwrap();
        assert_eq!(as_of(&path, late).expect(200).await.body, now);

        let product_path = format!("/products/{product}");
        let past = as_of(&product_path, time).expect(200).await.body;
        assert_eq!([&past["on_hand"], &past["reserved"], &past["shipped"]], [100, 3, 0]);

        as_of(&path, "2020-01-01T00:00:00Z").expect(404).await;
        for refused in ["2999-01-01T00:00:00Z", "soon", "", "0:99999999", "99:1", "3"] {
            let answer = as_of(&path, refused).expect(400).await;
            assert_eq!(answer.problem(), "invalid-parameter", "{refused}");
        }
        let other = app.caller(Role::Customer, &uuid::Uuid::now_v7().to_string());
        other.get(&format!("{path}?as_of={then}")).expect(404).await;
        let owner = app.caller(Role::Customer, &customer.to_string());
        owner.get(&format!("{path}?as_of={then}")).expect(200).await;
    }
}

async fn rows(pool: &PgPool, name: &str) -> Vec<String> {
    let sql = format!("select t::text from read.{name} t order by 1");
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(pool).await.unwrap()
}

const VIEWS: [&str; 4] = ["orders", "products", "customers", "history"];

/// Rows in PostgreSQL are changed by hand, repaired, and then lost completely.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_models_are_audited_mended_and_come_back_from_nothing() {
    let ground = ground(LogChoice::Embedded).await;
    let _orphan = Orphan(ground.dir.path());
    let server = Program::start(&ground);
    let (product, reader) = (server.staff.product(1_000, 100).await, server.staff.customer().await);
    let mut orders = Vec::new();
    for _ in 0..5 {
        let placed = order(reader, &[(product, 1)]);
        orders.push(server.staff.post("/orders", &placed).expect(201).await);
    }
    let token = orders[1].header("log-position").unwrap();
    let id = orders[3].id("order_id");
    let shown = server.staff.get(&format!("/orders/{id}"));
    shown.after([&orders[3]]).expect(200).await;
    let pool = PgPool::connect_with(ground.config.database.clone().unwrap()).await.unwrap();
    let audit = |code: i32| {
        let output = output(&ground, &["audit", "--read-models", "--json"]);
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(code), "{told}");
        serde_json::from_str::<Value>(&told).unwrap()
    };
    let clean = audit(0);
    assert_eq!(clean["read_models"].as_array().unwrap().len(), ReadModel::ALL.len());
    assert!(print_of(&ground, &["audit", "--read-models"]).contains("nothing is wrong"));

    let wrong = format!("update orders_v1.orders set status = 'shipped' where order_id = '{id}'");
    sqlx::raw_sql(AssertSqlSafe(wrong)).execute(&pool).await.unwrap();
    let found = audit(1);
    assert_eq!(found["found"], 2);
    assert!(found.to_string().contains(&id.to_string()));
    let mended = print_of(&ground, &["rebuild", "orders", "--stream", &format!("order-{id}")]);
    assert!(mended.contains("1 rows before, 1 now"), "{mended}");
    audit(0);

    let past = print_of(&ground, &["rebuild", "orders", "--as-of", token]);
    let schema = past.split_whitespace().last().unwrap();
    let counted = format!("select count(*) from {schema}.orders");
    let counted: i64 = sqlx::query_scalar(AssertSqlSafe(counted)).fetch_one(&pool).await.unwrap();
    assert_eq!(counted, 2);
    assert_eq!(print_of(&ground, &["parked"]), "");

    server.kill();
    let mut before = Vec::new();
    let server = Program::start(&ground);
    server.staff.get(&format!("/orders/{id}")).expect(200).await;
    audit(0);
    for view in VIEWS {
        before.push(rows(&pool, view).await);
    }
    server.kill();
    let schemas: Vec<String> = sqlx::query_scalar(
        "select quote_ident(nspname) from pg_namespace \
         where nspname !~ '^pg_' and nspname not in ('information_schema', 'keys')",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    for schema in schemas {
        let drop = format!("drop schema {schema} cascade");
        sqlx::raw_sql(AssertSqlSafe(drop)).execute(&pool).await.unwrap();
    }
    sqlx::raw_sql("create schema public").execute(&pool).await.unwrap();
    let server = Program::start(&ground);
    eventually("everything is back", async || {
        let mut after = Vec::new();
        for view in VIEWS {
            after.push(rows(&pool, view).await);
        }
        (after == before).then_some(())
    })
    .await;
    assert_eq!(audit(0)["found"], 0);
    let body = server.staff.get(&format!("/customers/{reader}")).expect(200).await.body;
    assert_eq!(body["first_name"], "A");
    assert!(server.stop().success());
}
