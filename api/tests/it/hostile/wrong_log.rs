//! The log does not match the checkpoints of the read models: they stop, report it, and overwrite
//! nothing.

use crate::{
    app::{self, Ground, TestApp, eventually, ground},
    client::{Api, order},
    program::{Program, delete_topic, output, print_of},
};
use orderlog::{auth::Role, config::LogChoice, startup::log_dir};
use projections::{
    ReadModel,
    database::{self, PoolSettings},
};
use sqlx::{PgPool, Row};
use std::{fs, path::Path};

/// Places `orders` orders.
async fn sell(program: &Program, orders: usize) {
    let (product, reader) =
        (program.staff.product(500, 1_000).await, program.staff.customer().await);
    for _ in 0..orders {
        program.staff.post("/orders", &order(reader, &[(product, 1)])).expect(201).await;
    }
}

/// All rows of the read models of orders and products.
async fn rows(pool: &PgPool) -> Vec<String> {
    let all = "select 'o' || to_jsonb(o)::text as row from read.orders o union all \
               select 'p' || to_jsonb(p)::text from read.products p order by 1";
    sqlx::query(all).fetch_all(pool).await.unwrap().iter().map(|row| row.get("row")).collect()
}

async fn pool(ground: &Ground) -> PgPool {
    let options = ground.config.database.clone().unwrap();
    database::connect(options, PoolSettings::default()).await.unwrap()
}

/// Waits until every partition with applied events has stopped in all read models with the right
/// reason.
async fn stopped_all_over(pool: &PgPool) {
    eventually("the read models stop", async || {
        let left = "select count(*) from control.checkpoint where last_event_id is not null and \
                    coalesce(stopped, '') not like 'the checkpoint belongs to another log%'";
        let left: i64 = sqlx::query_scalar(left).fetch_one(pool).await.unwrap();
        (left == 0).then_some(())
    })
    .await;
}

/// The readiness probe must name the stopped read models.
async fn assert_shown(api: &Api) {
    let mut all = ReadModel::ALL.map(ReadModel::as_str);
    all.sort_unstable();
    eventually("all of them are listed", async || {
        let ready = api.ready().await?;
        let stopped = ready["stopped"].as_array().unwrap();
        let models = stopped.iter().map(|one| one["projection"].as_str().unwrap());
        let why = "the checkpoint belongs to another log";
        (models.eq(all) && ready.to_string().contains(why)).then_some(())
    })
    .await;
}

async fn caught_up(ground: &Ground, pool: &PgPool, orders: i64) {
    eventually("the read models are there", async || {
        let shown: i64 =
            sqlx::query_scalar("select count(*) from read.orders where status = 'confirmed'")
                .fetch_one(pool)
                .await
                .ok()?;
        (shown == orders).then_some(())
    })
    .await;
    assert!(!print_of(ground, &["projections"]).contains("stopped:"));
}

async fn first_has_events(pool: &PgPool) -> bool {
    let all =
        "select bool_and(last_event_id is not null) from control.checkpoint where partition = 0";
    sqlx::query_scalar(all).fetch_one(pool).await.unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_models_stop_before_another_log_and_go_on_with_their_own() {
    let (mine, other) = (ground(LogChoice::Embedded).await, ground(LogChoice::Embedded).await);
    // Enough orders for every partition to have events, because an empty partition looks the same
    // in any log.
    for (ground, orders) in [(&mine, 120), (&other, 3)] {
        let program = Program::start(ground);
        sell(&program, orders).await;
        assert!(program.stop().success());
    }
    let pool = pool(&mine).await;
    let program = Program::start(&mine);
    caught_up(&mine, &pool, 120).await;
    assert!(program.stop().success());
    let before = rows(&pool).await;

    let (dir, aside) = (log_dir(&mine.config.data_dir), mine.dir.path().join("aside"));
    fs::rename(&dir, &aside).unwrap();
    copy(&log_dir(&other.config.data_dir), &dir);
    let program = Program::start(&mine);
    stopped_all_over(&pool).await;
    let told = print_of(&mine, &["projections"]);
    assert!(told.contains("stopped: the checkpoint belongs to another log"), "{told}");
    assert_shown(&program.staff).await;
    assert!(program.stop().success());
    assert_eq!(rows(&pool).await, before, "something was overwritten");

    fs::remove_dir_all(&dir).unwrap();
    fs::rename(&aside, &dir).unwrap();
    let program = Program::start(&mine);
    sell(&program, 1).await;
    caught_up(&mine, &pool, 121).await;
    assert!(program.stop().success());
    assert_eq!(output(&mine, &["audit"]).status.code(), Some(0));
}

/// The topic was deleted and created again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_models_stop_before_a_new_kafka_topic_of_the_same_name() {
    let Some(log) = app::fresh_topic() else { return };
    let mut ground = ground(log).await;
    let program = Program::start(&ground);
    let pool = pool(&ground).await;
    // A read model shows why its first partition stopped. A partition without applied events cannot
    // notice another log, so the first partition must have events.
    let mut orders = 0;
    while !first_has_events(&pool).await {
        sell(&program, 1).await;
        orders += 1;
        caught_up(&ground, &pool, orders).await;
    }
    assert!(program.stop().success());
    let before = rows(&pool).await;

    delete_topic(&ground.config.log).await;
    let gone = ground.config.log.clone();
    // Kafka removes the topic some time after the deletion.
    eventually("the topic is gone", async || (!exists(&gone)).then_some(())).await;
    ground.config.partitions = None;
    let app = TestApp::start(Ground { config: ground.config.clone(), dir: ground.dir }).await;
    stopped_all_over(&pool).await;
    let admin = app.caller(Role::Admin, "operator");
    let shown = admin.get("/admin/projections").expect(200).await;
    assert!(shown.body.to_string().contains("stopped"), "{:?}", shown.body);
    assert_shown(&app.staff).await;
    assert_eq!(rows(&pool).await, before, "something was overwritten");
    app.abandon().await;
}

fn exists(log: &LogChoice) -> bool {
    use rdkafka::{
        ClientConfig,
        consumer::{BaseConsumer, Consumer},
    };
    let LogChoice::Kafka { bootstrap_servers, topic, .. } = log else { return false };
    let client: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", bootstrap_servers).create().unwrap();
    let metadata = client.fetch_metadata(None, app::PATIENCE).unwrap();
    metadata.topics().iter().any(|found| found.name() == topic)
}
