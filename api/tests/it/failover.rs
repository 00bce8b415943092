//! Two processes on one log, and a broker that is killed.

use crate::{
    app::{self, eventually, fresh_topic, ground},
    books::{Books, audit_clean},
    client::{Answer, order},
    program::{self, Program},
    use_of_broker,
};
use futures::future::join_all;
use serde_json::json;
use std::{collections::BTreeSet, path::PathBuf, process::Command};
use uuid::Uuid;

/// A broker that the tests may kill.
#[derive(Clone)]
pub struct Broker {
    control: PathBuf,
    dir: PathBuf,
}

impl Broker {
    /// The broker in `ORDERLOG_KAFKA_DIR`, controlled by `ORDERLOG_KAFKA_CONTROL`, once no other
    /// test uses it. `None`, with a message, if they are not set.
    pub fn of_the_environment() -> Option<Self> {
        let variable = |name| std::env::var_os(name).map(PathBuf::from);
        let control = variable("ORDERLOG_KAFKA_CONTROL").zip(variable("ORDERLOG_KAFKA_DIR"));
        if control.is_none() {
            let required = std::env::var("ORDERLOG_REQUIRE_KAFKA").is_ok_and(|value| value == "1");
            assert!(!required, "ORDERLOG_KAFKA_CONTROL and ORDERLOG_KAFKA_DIR are not set");
            println!("skipped: ORDERLOG_KAFKA_CONTROL and ORDERLOG_KAFKA_DIR are not set");
        }
        use_of_broker::take_alone();
        control.map(|(control, dir)| Self { control, dir })
    }

    pub async fn kill(&self) {
        self.control("kill").await;
    }

    /// Stops it cleanly, so that nothing is repaired at the next start.
    pub async fn stop(&self) {
        self.control("stop").await;
    }

    /// The only segment file of a small partition.
    pub fn segment(&self, topic: &str, partition: u32) -> PathBuf {
        self.dir.join(format!("data/{topic}-{partition}/00000000000000000000.log"))
    }

    pub async fn restart(&self) {
        self.control("restart").await;
    }

    async fn control(&self, what: &'static str) {
        let Self { control, dir } = self.clone();
        let run = move || Command::new(control).arg(what).arg(dir).status().unwrap();
        assert!(tokio::task::spawn_blocking(run).await.unwrap().success(), "kafka {what}");
    }
}

/// A paused writer loses its partitions to another process. When it continues, it changes nothing
/// and steps down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_process_steps_down_on_kafka() {
    let Some(log) = fresh_topic() else { return };
    let first_ground = ground(log).await;
    let second_ground = first_ground.beside();

    let first = Program::start(&first_ground);
    let product = first.staff.product(1_000, 1_000).await;
    let reader = first.staff.customer().await;
    let body = order(reader, &[(product, 1)]);
    let place = || {
        first
            .staff
            .post("/products", &json!({"name": "A", "price": {"amount": 1, "currency": "GBP"}}))
    };
    // Some requests are in progress when the process is paused.
    let under_way: Vec<_> = (0..50).map(|_| tokio::spawn(place().send())).collect();
    eventually("one of them is answered", async || {
        under_way.iter().any(tokio::task::JoinHandle::is_finished).then_some(())
    })
    .await;
    first.signal("STOP");

    let second = Program::start(&second_ground);
    for _ in 0..5 {
        second.staff.post("/orders", &body).expect(201).await;
    }
    first.signal("CONT");
    let under_way: Vec<Answer> =
        join_all(under_way).await.into_iter().map(Result::unwrap).collect();
    // Enough requests to reach every partition.
    let late: Vec<Answer> = join_all((0..100).map(|_| place().send())).await;
    for answer in &late {
        assert_eq!(answer.status, 503, "{:?}", answer.body);
        assert_eq!(answer.problem(), "command-not-applied", "{:?}", answer.body);
    }
    eventually("the first says that it is not ready", async || {
        (first.staff.get("//readyz").send().await.status == 503).then_some(())
    })
    .await;
    second.staff.post("/orders", &body).expect(201).await;

    let log = program::open_log(&second_ground).await;
    let books = app::settled(&*log).await;
    books.check();
    let made: BTreeSet<Uuid> = books.products.keys().copied().collect();
    for answer in &under_way {
        match answer.status {
            201 => assert!(made.contains(&answer.id("product_id")), "acknowledged but lost"),
            503 => {}
            _ => panic!("{:?}", answer.body),
        }
    }
    let unclear = under_way.iter().filter(|answer| answer.problem() == "outcome-unknown").count();
    let clear = under_way.iter().filter(|answer| answer.status == 201).count();
    assert!((clear + 1..=clear + 1 + unclear).contains(&made.len()), "refused but applied");
    assert!(second.stop().success());
    drop(first);
    assert_eq!(Books::read(&*log).await.orders.len(), 6);
    audit_clean(&*log).await;
    program::delete_topic(&second_ground.config.log).await;
}

/// A second command node by mistake is refused. One that is meant takes over, and when it is gone, the
/// first one serves again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_command_node_is_refused_unless_it_takes_over_on_kafka() {
    let Some(log) = fresh_topic() else { return };
    let first_ground = ground(log).await;
    let second_ground = first_ground.beside();
    let first = Program::start(&first_ground);
    let product = first.staff.product(1_000, 1_000).await;
    let body = json!({"quantity": 1, "reason": "received"});
    let path = format!("/products/{product}/stock");
    let receive = async |node: &Program| node.staff.post(&path, &body).send().await.status;

    let mut by_mistake = program::command(&second_ground, &[]);
    by_mistake.env("LISTEN_ADDR", "127.0.0.1:0").env("TAKE_OVER", "false");
    let refused = tokio::task::spawn_blocking(move || by_mistake.output().unwrap()).await.unwrap();
    let told = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(75), "{told}");
    assert!(told.contains("--take-over"), "{told}");
    assert_eq!(receive(&first).await, 200);

    let second = Program::start(&second_ground);
    assert_eq!(receive(&second).await, 200);
    assert_eq!(receive(&first).await, 503);
    second.kill();
    eventually("the first one takes back what it is asked for", async || {
        (receive(&first).await == 200).then_some(())
    })
    .await;
    assert!(first.stop().success());
    // Who has stopped leaves the place at once.
    let mut third = program::command(&first_ground, &["serve"]);
    third.env("TAKE_OVER", "false");
    let third = Program::start_as(third);
    assert!(third.stop().success());
    let log = program::open_log(&first_ground).await;
    audit_clean(&*log).await;
    program::delete_topic(&first_ground.config.log).await;
}

/// If the broker dies while the program runs, requests fail but nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_go_on_after_a_kill_of_kafka() {
    let Some(log) = fresh_topic() else { return };
    let Some(broker) = Broker::of_the_environment() else { return };
    let app = app::TestApp::start(ground(log).await).await;
    let product = app.staff.product(1_000, 1_000).await;
    let reader = app.staff.customer().await;
    let body = order(reader, &[(product, 1)]);
    app.staff.post("/orders", &body).key("before").expect(201).await;
    broker.kill().await;
    let refused = app.staff.post("/orders", &body).key("during").send().await;
    assert_eq!(refused.status, 503, "{:?}", refused.body);
    broker.restart().await;
    for key in ["before", "during", "after"] {
        eventually("orders are taken again", async || {
            let answer = app.staff.post("/orders", &body).key(key).send().await;
            (answer.status == 201).then_some(())
        })
        .await;
    }
    assert_eq!(app.settled().await.orders.len(), 3);
    app.finish().await;
}
