//! The program is killed while it takes orders, and continues correctly after a restart.

use crate::{
    app::{self, Ground, PATIENCE, eventually, fresh_topic, ground},
    books::{Books, audit_clean},
    client::{Answer, Api, order_paid_by},
    failover::Broker,
    program::{self, Orphan, Program},
    use_of_broker,
};
use futures::{StreamExt, stream};
use orderlog::config::LogChoice;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};
use uuid::Uuid;

/// Fewer orders in a debug build, which is about ten times slower.
const ORDERS: usize = if cfg!(debug_assertions) { 400 } else { 5_000 };

/// The stock of the product that sells out.
const SCARCE: i64 = if cfg!(debug_assertions) { 40 } else { 500 };

const CLIENTS: usize = 32;

/// The orders by number; each number has its own key.
struct Orders {
    products: Vec<Uuid>,
    readers: Vec<Uuid>,
}

impl Orders {
    async fn prepare(api: &Api) -> Self {
        let mut orders = Self { products: Vec::new(), readers: Vec::new() };
        // One product sells out during the test.
        for stock in [100_000, 100_000, 100_000, SCARCE] {
            orders.products.push(api.product(999, stock).await);
        }
        for _ in 0..10 {
            orders.readers.push(api.customer().await);
        }
        orders
    }

    fn body(&self, number: usize) -> Value {
        let line = |nth: usize| (self.products[(number + nth) % self.products.len()], 1);
        let method = match number % 40 {
            7 => "pm_card_declined",
            23 => "pm_card_error",
            _ => "pm_card_visa",
        };
        order_paid_by(self.readers[number % self.readers.len()], &[line(0), line(1)], method)
    }
}

/// The final answers, by the number of the order.
type Answers = BTreeMap<usize, Answer>;

/// Sends the orders with these numbers, `CLIENTS` concurrently. Returns the final answers.
async fn send(api: &Api, orders: &Orders, numbers: &[usize], answered: &AtomicUsize) -> Answers {
    stream::iter(numbers.iter().copied())
        .map(async |number| {
            let call = api.post("/orders", &orders.body(number)).key(format!("order-{number}"));
            let answer = call.try_send().await.ok()?;
            // 202 and 503 are not final.
            let last = ![202, 503].contains(&answer.status);
            answered.fetch_add(usize::from(last), Ordering::Relaxed);
            last.then_some((number, answer))
        })
        .buffer_unordered(CLIENTS)
        .filter_map(async |answer| answer)
        .collect()
        .await
}

/// The faults of the log's server before and after each kill of the program.
struct Hurt<B, A> {
    before: B,
    after: A,
}

/// Many clients send orders, and the program is killed three times meanwhile.
async fn orders_survive_kills<B: AsyncFn(usize), A: AsyncFn(usize)>(
    ground: Ground,
    hurt: Hurt<B, A>,
) {
    let mut program = Program::start(&ground);
    let orders = Orders::prepare(&program.staff).await;
    let mut acknowledged = Answers::new();
    for round in 1..=3 {
        let todo = (0..ORDERS).filter(|number| !acknowledged.contains_key(number));
        let todo: Vec<usize> = todo.collect();
        let answered = AtomicUsize::new(0);
        let progress = async |share: usize| {
            let goal = (answered.load(Ordering::Relaxed) + share).min(todo.len());
            eventually("orders are answered", async || {
                (answered.load(Ordering::Relaxed) >= goal).then_some(())
            })
            .await;
        };
        let sending = send(&program.staff, &orders, &todo, &answered);
        let killing = async {
            // Kill in the middle of the traffic.
            progress(ORDERS / 5).await;
            (hurt.before)(round).await;
            program.signal("KILL");
        };
        let (answers, ()) = futures::future::join(sending, killing).await;
        acknowledged.extend(answers);
        program.kill();
        (hurt.after)(round).await;
        program = Program::start(&ground);
    }
    assert!(!acknowledged.is_empty());
    retry_all(&program.staff, &orders, &acknowledged).await;

    let log = program::open_log(&ground).await;
    let books = app::settled(&*log).await;
    assert_eq!(books.orders.len(), ORDERS, "each key is one order");
    check(&books, &ground);
    assert!(program.stop().success());
    audit_clean(&*log).await;
    program::delete_topic(&ground.config.log).await;
}

/// Retries every order with its key, acknowledged or not. Each must be the same order as before.
async fn retry_all(api: &Api, orders: &Orders, acknowledged: &Answers) {
    let deadline = Instant::now() + PATIENCE;
    let mut last = Answers::new();
    while last.len() < ORDERS {
        assert!(Instant::now() < deadline, "only {} of {ORDERS} keys were answered", last.len());
        let todo: Vec<usize> = (0..ORDERS).filter(|number| !last.contains_key(number)).collect();
        last.extend(send(api, orders, &todo, &AtomicUsize::new(0)).await);
    }
    let mut ids = BTreeSet::new();
    for (number, answer) in &last {
        assert!([201, 402, 409].contains(&answer.status), "{number}: {:?}", answer.body);
        assert!(ids.insert(answer.id("order_id")), "two keys, one order");
        if let Some(before) = acknowledged.get(number) {
            assert_eq!(
                before.status, answer.status,
                "{number}: {:?} {:?}",
                before.body, answer.body
            );
            assert_eq!(before.id("order_id"), answer.id("order_id"), "{number}");
            assert_eq!(before.body["total"], answer.body["total"], "{number}");
            assert_eq!(answer.header("idempotency-replayed"), Some("true"), "{number}");
        }
    }
}

fn check(books: &Books, ground: &Ground) {
    books.check();
    books.check_journal(&app::journal(&ground.config.data_dir));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keyed_orders_survive_kills() {
    let unhurt = Hurt { before: async |_| {}, after: async |_| {} };
    orders_survive_kills(ground(LogChoice::Embedded).await, unhurt).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keyed_orders_survive_kills_on_kafka() {
    let Some(log) = fresh_topic() else { return };
    let unhurt = Hurt { before: async |_| {}, after: async |_| {} };
    orders_survive_kills(ground(log).await, unhurt).await;
}

/// The broker is killed too: while the program runs, and together with the program.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keyed_orders_survive_kills_of_kafka() {
    let Some(log) = fresh_topic() else { return };
    let Some(broker) = Broker::of_the_environment() else { return };
    let hurt = Hurt {
        before: async |round| {
            broker.kill().await;
            if round != 2 {
                broker.restart().await;
            }
        },
        after: async |round| {
            if round == 2 {
                broker.restart().await;
            }
        },
    };
    orders_survive_kills(ground(log).await, hurt).await;
}

/// After a kill between any two steps, a pending order becomes final by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pending_orders_end_after_a_kill_without_anybody_asking() {
    let ground = ground(LogChoice::Embedded).await;
    pending_orders_end(ground).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pending_orders_end_after_a_kill_on_kafka() {
    let Some(log) = fresh_topic() else { return };
    // It kills the program within the seconds that a slow payment takes.
    use_of_broker::take_alone();
    pending_orders_end(ground(log).await).await;
}

async fn pending_orders_end(ground: Ground) {
    const SLOW: usize = 10;
    let program = Program::start(&ground);
    let product = program.staff.product(2_500, 100).await;
    let reader = program.staff.customer().await;
    for _ in 0..SLOW {
        let order = order_paid_by(reader, &[(product, 1)], "pm_card_slow");
        program.staff.post("/orders", &order).header("prefer", "respond-async").expect(202).await;
    }
    let journal = || app::journal(&ground.config.data_dir);
    // Stock is reserved and the gateway has the payments, each of which takes 3 s.
    eventually("all payments are started in the log", async || {
        let books = Books::read(&*program::open_log(&ground).await).await;
        let started = books.orders.values().filter(|order| !order.payment_ids.is_empty()).count();
        (started == SLOW).then_some(())
    })
    .await;
    program.kill();
    assert_eq!(journal().matches("\"captured\"").count(), 0, "killed too late for this test");

    // Simulate that the gateway captured this payment just before the kill, and the program could
    // not record it.
    let charged = charge_behind_the_back(&ground);
    let program = Program::start(&ground);
    let log = program::open_log(&ground).await;
    let books = app::settled(&*log).await;
    assert_eq!(books.count("confirmed"), SLOW);
    check(&books, &ground);
    let times = journal().matches(&format!("\"captured\",\"payment_id\":\"{charged}\"")).count();
    assert_eq!(times, 1, "charged once");
    assert!(program.stop().success());
    audit_clean(&*log).await;
    program::delete_topic(&ground.config.log).await;
}

/// Writes into the gateway's journal that the first payment was captured. Returns the payment's id.
fn charge_behind_the_back(ground: &Ground) -> String {
    let path = ground.config.data_dir.join("sandbox-gateway.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let created: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let payment_id = created["payment_id"].as_str().unwrap();
    let amount = &created["amount"];
    let line =
        format!("{{\"did\":\"captured\",\"payment_id\":\"{payment_id}\",\"amount\":{amount}}}\n");
    let mut journal = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    journal.write_all(line.as_bytes()).unwrap();
    payment_id.to_owned()
}

/// The default mode: everything is in one data directory, including the private PostgreSQL, which
/// survives a kill of the program.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_mode_goes_on_after_a_stop_and_after_a_kill() {
    let mut ground = ground(LogChoice::Embedded).await;
    ground.config.database = None;
    let _orphan = Orphan(ground.dir.path());
    let program = Program::start(&ground);
    let product = program.staff.product(1_000, 10).await;
    let reader = program.staff.customer().await;
    let place = async |api: &Api, key: &str| {
        let order = crate::client::order(reader, &[(product, 1)]);
        api.post("/orders", &order).key(key).expect(201).await
    };
    let first = place(&program.staff, "first").await;
    program.kill();

    let program = Program::start(&ground);
    assert_eq!(place(&program.staff, "first").await.body, first.body);
    let second = place(&program.staff, "second").await;
    assert!(program.end_by("INT").success());

    let program = Program::start(&ground);
    for placed in [&first, &second] {
        let path = format!("/orders/{}", placed.id("order_id"));
        let token = placed.header("log-position").unwrap();
        let shown = program.staff.get(&path).header("min-log-position", token).expect(200).await;
        assert_eq!(shown.body, placed.body);
    }
    let product = program.staff.get(&format!("/products/{product}"));
    let token = second.header("log-position").unwrap();
    let shown = product.header("min-log-position", token).expect(200).await;
    assert_eq!(shown.body["available"], 8);
    assert_eq!(shown.body["on_hand"], json!(10));
    assert!(program.stop().success());
}

/// The first lines contain the address, the data directory, a token, and a command that works when
/// pasted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_printed_first_works_when_pasted() {
    let ground = ground(LogChoice::Embedded).await;
    let program = Program::start(&ground);
    let greeting = &program.greeting;
    assert!(greeting[0].contains("http://127.0.0.1:"), "{greeting:?}");
    assert!(greeting[1].contains(ground.config.data_dir.to_str().unwrap()), "{greeting:?}");
    assert!(greeting[2].contains("token"), "{greeting:?}");
    let pasted = std::process::Command::new("sh").arg("-c").arg(greeting.last().unwrap()).output();
    let answer = String::from_utf8(pasted.unwrap().stdout).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(program.stop().success());

    let log = program::open_log(&ground).await;
    let books = Books::read(&*log).await;
    assert_eq!(books.products.len(), 1);
}
