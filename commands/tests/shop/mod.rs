//! A shop on the in-memory log that can be killed and restarted.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::disallowed_methods, reason = "these tests use the real clock and real tasks")]

use chrono::TimeDelta;
use commands::{
    Command, CommandError, Outcome, Outside, Request, Router, ShardState, ShopRules, State,
    WriteSettings, WriteSide,
    customer::{self, Customer},
    gateway::{Creation, Ending, Gateway, GatewayError, NewPayment, Refund, SandboxGateway},
    mail::NoMailer,
    order::{self, Order},
    product::{self, Product},
};
use events::{
    Environment, Fingerprint, Money, Offset, Partition, Sealed, StreamId, Timestamp,
    environment::System,
    keys::MemoryKeyStore,
    log::{EventLog, memory::MemoryLog},
    order::Line,
};
use futures::future::BoxFuture;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::task::AbortHandle;
use uuid::Uuid;

/// The settings of process `node` in a shop without limits.
pub fn write_settings(node: Uuid) -> WriteSettings {
    WriteSettings::new(node, ShopRules::new("GBP".parse().unwrap()))
}

pub fn id() -> Uuid {
    System::new().uuid()
}

/// A request with a client's idempotency key.
pub fn keyed(stream: StreamId, command: impl Into<Command>, key: &str) -> Request {
    let command_id = Uuid::new_v5(&stream.id, key.as_bytes());
    Request {
        stream,
        command: command.into(),
        command_id,
        fingerprint: Fingerprint([7; 16]),
        expected_version: None,
        correlation_id: command_id,
        causation_id: command_id,
        traceparent: None,
    }
}

/// How long a sleep of [`LONG`] or more takes once [`Shop::hurry`] was called.
const NAP: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(25);

/// The real environment, except that a kill aborts all its tasks.
struct Mortal {
    system: System,
    /// The error of its wall clock, in seconds.
    off_s: AtomicI64,
    /// Whether long sleeps are shortened.
    restless: AtomicBool,
    dead: AtomicBool,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Mortal {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            system: System::new(),
            off_s: AtomicI64::new(0),
            restless: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            tasks: Mutex::default(),
        })
    }

    fn kill(&self) {
        self.dead.store(true, Ordering::SeqCst);
        for task in self.tasks.lock().unwrap().drain(..) {
            task.abort();
        }
    }
}

impl Environment for Mortal {
    fn now(&self) -> Timestamp {
        self.system.now() + TimeDelta::seconds(self.off_s.load(Ordering::SeqCst))
    }
    fn monotonic(&self) -> Duration {
        self.system.monotonic()
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let restless = self.restless.load(Ordering::SeqCst);
        self.system.sleep(if restless && duration >= LONG { NAP } else { duration })
    }
    fn uuid(&self) -> Uuid {
        self.system.uuid()
    }
    fn random(&self) -> u64 {
        self.system.random()
    }
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        if !self.dead.load(Ordering::SeqCst) {
            self.tasks.lock().unwrap().push(tokio::spawn(task).abort_handle());
        }
    }
}

/// What goes wrong in one of the gateway's next captures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whim {
    Panic,
    Hang,
}

/// The planned failures of a gateway, and the counts of its concurrent captures.
#[derive(Default)]
struct Whims {
    next: Mutex<Vec<Whim>>,
    /// The current number of concurrent captures, and the largest one so far.
    captures: AtomicUsize,
    most_captures: AtomicUsize,
    /// Whether a capture hangs.
    hangs: AtomicBool,
}

/// A gateway that counts the money taken and refunded, by payment.
struct Counting {
    sandbox: SandboxGateway,
    whims: Whims,
    moved: Mutex<BTreeMap<String, i64>>,
    known: Mutex<BTreeMap<String, i64>>,
}

#[async_trait::async_trait]
impl Gateway for Counting {
    async fn create(&self, payment: &NewPayment<'_>) -> Result<Creation, GatewayError> {
        let created = self.sandbox.create(payment).await?;
        if let Creation::Created(id) = &created {
            self.known.lock().unwrap().insert(id.to_string(), payment.amount.amount);
        }
        Ok(created)
    }
    async fn capture(&self, payment_id: &str) -> Result<Option<Ending>, GatewayError> {
        let whim = self.whims.next.lock().unwrap().pop();
        match whim {
            Some(Whim::Panic) => panic!("the gateway's library panics"),
            Some(Whim::Hang) => {
                self.whims.hangs.store(true, Ordering::SeqCst);
                return std::future::pending().await;
            }
            None => {}
        }
        let captures = self.whims.captures.fetch_add(1, Ordering::SeqCst) + 1;
        self.whims.most_captures.fetch_max(captures, Ordering::SeqCst);
        let ending = self.sandbox.capture(payment_id).await;
        self.whims.captures.fetch_sub(1, Ordering::SeqCst);
        let ending = ending?;
        if ending == Some(Ending::Captured) {
            let amount = self.known.lock().unwrap()[payment_id];
            self.moved.lock().unwrap().entry(payment_id.to_owned()).or_insert(amount);
        }
        Ok(ending)
    }
    async fn settle(&self, payment_id: &str) -> Result<Option<Ending>, GatewayError> {
        self.sandbox.settle(payment_id).await
    }
    async fn refund(
        &self,
        key: &str,
        payment_id: &str,
        amount: Money,
    ) -> Result<Refund, GatewayError> {
        let refund = self.sandbox.refund(key, payment_id, amount).await?;
        self.moved.lock().unwrap().insert(payment_id.to_owned(), 0);
        Ok(refund)
    }
}

pub struct Shop {
    pub log: MemoryLog,
    mortal: Arc<Mortal>,
    gateway: Arc<Counting>,
    pub keys: Arc<MemoryKeyStore>,
    write_side: Option<WriteSide>,
}

impl Shop {
    pub async fn open(partitions: u32) -> Self {
        let gateway = Arc::new(Counting {
            sandbox: SandboxGateway::in_memory(Arc::new(System::new())),
            whims: Whims::default(),
            moved: Mutex::default(),
            known: Mutex::default(),
        });
        let log = MemoryLog::new(partitions, Arc::new(System::new()));
        let (mortal, keys) = (Mortal::new(), Arc::default());
        let mut shop = Self { log, mortal, gateway, keys, write_side: None };
        shop.start().await;
        shop
    }

    /// Starts another process on the same log.
    pub async fn beside(&self) -> Self {
        let mut shop = Self {
            log: self.log.clone(),
            mortal: Mortal::new(),
            gateway: Arc::clone(&self.gateway),
            keys: Arc::clone(&self.keys),
            write_side: None,
        };
        shop.start().await;
        shop
    }

    pub async fn start(&mut self) {
        let environment: Arc<dyn Environment> = self.mortal.clone();
        let log: Arc<dyn EventLog> = Arc::new(self.log.clone());
        let settings =
            WriteSettings { expiry_grace: Duration::from_millis(10), ..write_settings(id()) };
        let outside = Outside {
            gateway: self.gateway.clone(),
            keys: self.keys.clone(),
            mailer: Arc::new(NoMailer),
        };
        let write_side = WriteSide::start(&log, &environment, outside, &settings);
        let status = write_side.ready().await;
        assert!(status.iter().all(|shard| shard.state == ShardState::Open), "{status:?}");
        self.write_side = Some(write_side);
    }

    /// Aborts every task, without a stop.
    pub fn kill(&mut self) {
        self.mortal.kill();
        self.write_side = None;
        self.mortal = Mortal::new();
    }

    pub async fn restart(&mut self) {
        self.write_side.take().unwrap().stop().await;
        self.mortal = Mortal::new();
        self.start().await;
    }

    /// Drops the write side without stopping it, and waits until its tasks have ended.
    pub async fn abandon(&mut self) {
        self.write_side = None;
        while !self.mortal.tasks.lock().unwrap().iter().all(AbortHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub async fn stop(&mut self) {
        self.write_side.take().unwrap().stop().await;
    }

    /// Sets the error of the wall clock, in seconds.
    pub fn set_clock_off(&self, seconds: i64) {
        self.mortal.off_s.store(seconds, Ordering::SeqCst);
    }

    /// From now on, sleeps of [`LONG`] or more are shortened.
    pub fn hurry(&self) {
        self.mortal.restless.store(true, Ordering::SeqCst);
    }

    /// Plans the failures of the next captures.
    pub fn expect(&self, whims: impl IntoIterator<Item = Whim>) {
        self.gateway.whims.next.lock().unwrap().extend(whims);
    }

    /// The largest number of concurrent captures so far.
    pub fn most_captures(&self) -> usize {
        self.gateway.whims.most_captures.load(Ordering::SeqCst)
    }

    /// Whether a capture has begun that never ends.
    pub fn hangs(&self) -> bool {
        self.gateway.whims.hangs.load(Ordering::SeqCst)
    }

    /// The number of captures in progress.
    pub fn captures(&self) -> usize {
        self.gateway.whims.captures.load(Ordering::SeqCst)
    }

    pub fn router(&self) -> &Router {
        &self.write_side.as_ref().unwrap().router
    }

    pub async fn send(
        &self,
        stream: StreamId,
        command: impl Into<Command>,
    ) -> Result<Outcome, CommandError> {
        let command_id = id();
        let request = Request { command_id, ..keyed(stream, command, "") };
        self.router().send(request).await
    }

    pub async fn product(&self, price: i64, initial_stock: i64) -> Uuid {
        let product_id = id();
        let price = Money::new(price, "GBP".parse().unwrap());
        let add = product::Add {
            name: "Book".into(),
            description: None,
            category: None,
            price,
            initial_stock,
        };
        self.send(StreamId::product(product_id), product::Command::Add(add)).await.unwrap();
        product_id
    }

    pub async fn register(&self, email_id: Uuid) -> Arc<Customer> {
        let customer_id = id();
        let sealed = Sealed::from("sealed".to_owned());
        let register = customer::Register {
            email_id,
            email: sealed.clone(),
            first_name: sealed.clone(),
            last_name: sealed,
        };
        let stream = StreamId::customer(customer_id);
        self.send(stream, customer::Command::Register(register)).await.unwrap();
        let State::Customer(customer) = self.wait(stream).await else { panic!() };
        customer
    }

    pub async fn customer(&self) -> Uuid {
        let customer_id = id();
        let sealed = Sealed::from("sealed".to_owned());
        let register = customer::Register {
            email_id: id(),
            email: sealed.clone(),
            first_name: sealed.clone(),
            last_name: sealed,
        };
        let stream = StreamId::customer(customer_id);
        self.send(stream, customer::Command::Register(register)).await.unwrap();
        self.wait(stream).await;
        customer_id
    }

    pub async fn place(&self, customer_id: Uuid, lines: &[(Uuid, i64)], method: &str) -> Uuid {
        self.place_until(customer_id, lines, method, Duration::from_mins(15)).await
    }

    pub async fn place_until(
        &self,
        customer_id: Uuid,
        lines: &[(Uuid, i64)],
        method: &str,
        within: Duration,
    ) -> Uuid {
        let order_id = id();
        let lines = lines.iter().map(|&(product_id, quantity)| Line { product_id, quantity });
        let place = order::Place {
            customer_id,
            lines: lines.collect(),
            payment_method: method.into(),
            shipping_address: None,
            deadline: System::new().now() + within,
        };
        self.send(StreamId::order(order_id), order::Command::Place(place)).await.unwrap();
        order_id
    }

    pub async fn order(
        &self,
        customer_id: Uuid,
        lines: &[(Uuid, i64)],
        method: &str,
    ) -> Arc<Order> {
        let order_id = self.place(customer_id, lines, method).await;
        self.final_order(order_id).await
    }

    /// Places an order of one unit.
    pub async fn one(&self, customer_id: Uuid, product_id: Uuid) -> Arc<Order> {
        self.order(customer_id, &[(product_id, 1)], "pm_card_visa").await
    }

    pub async fn final_order(&self, order_id: Uuid) -> Arc<Order> {
        let State::Order(order) = self.wait(StreamId::order(order_id)).await else { panic!() };
        order
    }

    async fn wait(&self, stream: StreamId) -> State {
        let final_state = self.router().await_final(stream, Duration::from_secs(20)).await.unwrap();
        final_state.expect("it is decided in time").state
    }

    pub async fn stock(&self, product_id: Uuid) -> Arc<Product> {
        let view = self.router().state(StreamId::product(product_id)).await.unwrap();
        let State::Product(product) = view.state else { panic!() };
        product
    }

    pub async fn look_order(&self, order_id: Uuid) -> Arc<Order> {
        let view = self.router().state(StreamId::order(order_id)).await.unwrap();
        let State::Order(order) = view.state else { panic!() };
        order
    }

    /// Waits until no effect is owed any more.
    pub async fn at_rest(&self) {
        let rest = async {
            while self.write_side.as_ref().unwrap().owing() > 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), rest)
            .await
            .expect("everything owed is done in time");
    }

    /// The money that the gateway holds, for all payments together.
    pub fn captured(&self) -> i64 {
        self.gateway.moved.lock().unwrap().values().sum()
    }

    /// The end of the first partition.
    pub async fn end(&self) -> Offset {
        self.log.end(Partition(0)).await.unwrap()
    }
}
