//! The clients. Each has one command in flight, which it sends until it knows the outcome.

use super::history::{Action, Answer, Caller, Command, Exchange, Reply};
use anyhow::{Context, Result};
use fastrand::Rng;
use futures::{StreamExt, TryStreamExt, stream};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use uuid::Uuid;

/// The number of recent orders that later commands use.
const KNOWN_ORDERS: usize = 2_000;

/// The time-out of a readiness check.
const READY: Duration = Duration::from_secs(5);

/// Concurrent commands while the shop is being filled.
const FILLING: usize = 16;

/// How long a client retries a command before it gives up.
const PATIENCE: Duration = Duration::from_secs(90);

/// The first and the longest pause between two attempts.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The state that all clients share.
pub struct Traffic {
    http: Client,
    token: String,
    caller: Caller,
    seed: u64,
    /// The base URLs of the program; two during a takeover.
    pub targets: watch::Sender<Vec<String>>,
    numbers: AtomicU64,
    acknowledged: AtomicU64,
    requests: AtomicU64,
    replays: AtomicU64,
    shop: Mutex<Shop>,
    exchanges: Mutex<Vec<Exchange>>,
    /// Answers to repeated keys that differ from the first answers.
    differing: Mutex<Vec<String>>,
}

#[derive(Default)]
struct Shop {
    products: Vec<Uuid>,
    customers: Vec<Uuid>,
    /// Orders with their last known status.
    orders: Vec<(Uuid, &'static str)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Traffic {
    /// Makes the state of clients with this token.
    ///
    /// # Errors
    /// When the token cannot be decoded.
    pub fn new(token: String, seed: u64, target: String) -> Result<Self> {
        let http = Client::builder().no_proxy().pool_max_idle_per_host(1_024).build()?;
        Ok(Self {
            http,
            caller: caller_of(&token)?,
            token,
            seed,
            targets: watch::Sender::new(vec![target]),
            numbers: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            replays: AtomicU64::new(0),
            shop: Mutex::default(),
            exchanges: Mutex::default(),
            differing: Mutex::default(),
        })
    }

    /// Whether the program at `target` reports that it is ready.
    pub async fn is_ready(&self, target: &str) -> bool {
        let asked = self.http.get(format!("{target}/readyz")).timeout(READY).send().await;
        asked.is_ok_and(|answer| answer.status().is_success())
    }

    /// The number of commands created so far.
    pub fn sent(&self) -> u64 {
        self.numbers.load(Relaxed)
    }

    /// The number of commands acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Relaxed)
    }

    /// The number of requests sent so far, and how many of them repeated a key that was already
    /// answered.
    pub fn requests(&self) -> (u64, u64) {
        (self.requests.load(Relaxed), self.replays.load(Relaxed))
    }

    /// Takes all exchanges and differing answers. Call it when no client is running any more.
    pub fn take(&self) -> (Vec<Exchange>, Vec<String>) {
        (std::mem::take(&mut *lock(&self.exchanges)), std::mem::take(&mut *lock(&self.differing)))
    }

    /// Fills the shop with products and customers.
    ///
    /// # Errors
    /// When one of them is not accepted.
    pub async fn fill(&self, products: usize, customers: usize) -> Result<()> {
        let mut rng = Rng::with_seed(self.seed);
        let filling = (0..products + customers).map(|nth| {
            let (number, key) = self.number();
            let command = if nth < products {
                let body = json!({
                    "name": format!("The Book of Number {nth}"),
                    "price": {"amount": rng.i64(399..6_000), "currency": "GBP"},
                    // Every fifth product sells out again and again.
                    "initial_stock": if nth % 5 == 0 { 20 } else { 5_000 },
                });
                self.command(Action::Product, Method::POST, "/api/v1/products".into(), key, body)
            } else {
                self.register(number, key, false)
            };
            let mut rng = rng.fork();
            async move {
                let began = Instant::now();
                let mut exchange = self.until_known(command, &mut rng, false).await;
                // A client may give up; on a slow machine one in 210 does. Here it must try again.
                let wrong =
                    |exchange: &Exchange| matches!(exchange.replies.last(), Some(Reply::Wrong(_)));
                while exchange.answer().is_none() && !wrong(&exchange) && began.elapsed() < PATIENCE
                {
                    let again = self.until_known(exchange.command.clone(), &mut rng, false).await;
                    exchange.replies.extend(again.replies);
                }
                exchange
                    .acknowledgement()
                    .with_context(|| format!("the shop was not filled: {:?}", exchange.replies))?;
                self.note(exchange);
                anyhow::Ok(())
            }
        });
        stream::iter(filling).buffer_unordered(FILLING).try_collect().await
    }

    fn number(&self) -> (u64, String) {
        let number = self.numbers.fetch_add(1, Relaxed);
        (number, format!("{:x}-{number}", self.seed))
    }

    /// Runs one client, which sends commands until `until` is set.
    pub async fn client(self: Arc<Self>, nth: u64, until: watch::Receiver<bool>) {
        let mut rng = Rng::with_seed(self.seed ^ (nth + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        while !*until.borrow() {
            if rng.u8(..) < 15 {
                self.repeat(&mut rng).await;
            }
            let command = self.next(&mut rng);
            let twins = rng.u8(..) < 10;
            let exchange = self.until_known(command, &mut rng, twins).await;
            self.note(exchange);
        }
    }

    fn command(
        &self,
        action: Action,
        method: Method,
        path: String,
        key: String,
        body: Value,
    ) -> Command {
        let id = Command::id(&self.caller, &method, &path, &key);
        Command { action, key, id, method, path, body }
    }

    fn register(&self, number: u64, key: String, contended: bool) -> Command {
        // Some customers compete for a few addresses.
        let name = if contended { number % 7 } else { number };
        let mark = if contended { "wanted" } else { "reader" };
        let body = json!({
            "email": format!("{mark}.{name}@example.org"), "first_name": "Ada", "last_name": "Byron",
        });
        self.command(Action::Register, Method::POST, "/api/v1/customers".into(), key, body)
    }

    /// Chooses a client's next command.
    fn next(&self, rng: &mut Rng) -> Command {
        let (number, key) = self.number();
        let shop = lock(&self.shop);
        let order = (!shop.orders.is_empty()).then(|| rng.usize(..shop.orders.len()));
        match (rng.u8(..100), order) {
            (0..=7, _) => self.register(number, key, rng.u8(..) < 50),
            (8..=14, Some(nth)) => {
                let order = shop.orders[nth].0;
                let path = format!("/api/v1/orders/{order}/cancel");
                let body = json!({"reason": "another book"});
                self.command(Action::Cancel { order }, Method::POST, path, key, body)
            }
            (15..=29, Some(nth)) => {
                let (order, seen) = shop.orders[nth];
                let to = match seen {
                    "confirmed" => ["processing", "shipped"][rng.usize(..2)],
                    "processing" => "shipped",
                    _ => "delivered",
                };
                let path = format!("/api/v1/orders/{order}/status");
                let action = Action::Move { order, to };
                self.command(action, Method::PATCH, path, key, json!({"status": to}))
            }
            (30..=59, _) => {
                let product = shop.products[rng.usize(..shop.products.len())];
                let quantity = if rng.u8(..) < 60 { -rng.i64(1..10) } else { rng.i64(1..20) };
                let reason = if quantity < 0 { "correction" } else { "received" };
                let path = format!("/api/v1/products/{product}/stock");
                let body = json!({"quantity": quantity, "reason": reason});
                self.command(Action::Stock { product, quantity }, Method::POST, path, key, body)
            }
            _ => self.order(&shop, key, rng),
        }
    }

    fn order(&self, shop: &Shop, key: String, rng: &mut Rng) -> Command {
        let items: Vec<Value> = (0..rng.usize(1..=3))
            .map(|_| {
                let id = shop.products[rng.usize(..shop.products.len())];
                json!({"product_id": id, "quantity": rng.i64(1..=3)})
            })
            .collect();
        let method = match rng.u8(..100) {
            0..=4 => "pm_card_declined",
            5..=8 => "pm_card_error",
            9..=11 => "pm_card_slow",
            _ => "pm_card_visa",
        };
        let customer = shop.customers[rng.usize(..shop.customers.len())];
        let body = json!({"customer_id": customer, "items": items, "payment_method": method});
        self.command(Action::Order, Method::POST, "/api/v1/orders".into(), key, body)
    }

    /// Sends a command until it has a final answer or the client gives up, which some clients do
    /// early.
    pub async fn until_known(&self, command: Command, rng: &mut Rng, twins: bool) -> Exchange {
        let began = Instant::now();
        let mut exchange = Exchange { command, replies: Vec::new(), twins };
        let mut rest = PAUSE;
        loop {
            // Some clients close the connection early.
            let seconds = if rng.u8(..) < 12 { 1 } else { 20 };
            let patience = Duration::from_secs(seconds);
            if twins && exchange.replies.is_empty() {
                let mut other = rng.fork();
                let one = self.attempt(&exchange.command, rng, patience);
                let two = self.attempt(&exchange.command, &mut other, patience);
                let (one, two) = tokio::join!(one, two);
                exchange.replies.extend([one, two]);
            } else {
                exchange.replies.push(self.attempt(&exchange.command, rng, patience).await);
            }
            let known = exchange.answer().is_some()
                || matches!(exchange.replies.last(), Some(Reply::Wrong(_)));
            let gives_up = rng.u8(..) < 8 || began.elapsed() > PATIENCE;
            if known || gives_up {
                return exchange;
            }
            sleep(rest + Duration::from_millis(rng.u64(..100))).await;
            rest = (rest * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&self, command: &Command, rng: &mut Rng, patience: Duration) -> Reply {
        let target = {
            let targets = self.targets.borrow();
            targets[rng.usize(..targets.len())].clone()
        };
        self.requests.fetch_add(1, Relaxed);
        let request = self
            .http
            .request(command.method.clone(), format!("{target}{}", command.path))
            .bearer_auth(&self.token)
            .header("idempotency-key", &command.key)
            .timeout(patience)
            .json(&command.body);
        match answer(request).await {
            Ok(answer) => Reply::of(answer),
            Err(error) if error.is_connect() && !error.is_timeout() => Reply::NotSent,
            Err(error) => Reply::Unknown(format!("{:#}", anyhow::Error::from(error))),
        }
    }

    /// Sends an old key again.
    async fn repeat(&self, rng: &mut Rng) {
        let old = {
            let exchanges = lock(&self.exchanges);
            let nth = (!exchanges.is_empty()).then(|| rng.usize(..exchanges.len()));
            nth.map(|nth| exchanges[nth].clone())
        };
        if let Some(old) = old {
            self.replay(&old, rng).await;
        }
    }

    /// Sends an acknowledged key again, which must get the first answer again. Returns `false` if
    /// it got no answer.
    pub async fn replay(&self, old: &Exchange, rng: &mut Rng) -> bool {
        let Some(first) = old.acknowledgement() else { return true };
        self.replays.fetch_add(1, Relaxed);
        match self.attempt(&old.command, rng, Duration::from_secs(20)).await {
            Reply::Final(again) | Reply::Wrong(again) => {
                if let Some(how) = difference(&old.command, first, &again) {
                    let Command { key, method, path, .. } = &old.command;
                    lock(&self.differing).push(format!("key {key} ({method} {path}): {how}"));
                }
                true
            }
            Reply::Accepted | Reply::NotApplied | Reply::NotSent | Reply::Unknown(_) => false,
        }
    }

    /// Records the exchange of a command.
    pub fn note(&self, exchange: Exchange) {
        if let Some(answer) = exchange.acknowledgement() {
            self.acknowledged.fetch_add(1, Relaxed);
            let mut shop = lock(&self.shop);
            let created = exchange.command.stream().id;
            match (&exchange.command.action, answer.status) {
                (Action::Product, 201) => shop.products.push(created),
                (Action::Register, 201) => shop.customers.push(created),
                (Action::Order, 201) => shop.see(created, "confirmed"),
                (Action::Move { order, to }, 200) => shop.see(*order, to),
                (Action::Cancel { order }, 200) => shop.see(*order, "cancelled"),
                _ => {}
            }
        }
        lock(&self.exchanges).push(exchange);
    }
}

impl Shop {
    fn see(&mut self, order: Uuid, status: &'static str) {
        self.orders.retain(|(known, _)| *known != order);
        if !["cancelled", "delivered"].contains(&status) {
            self.orders.push((order, status));
        }
        if self.orders.len() > KNOWN_ORDERS {
            self.orders.swap_remove(0);
        }
    }
}

async fn answer(request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
    let response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let bytes = response.bytes().await?;
    let body = serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&bytes).into_owned()));
    Ok(Answer::new(status, &headers, body))
}

/// Describes how the answer to a repeated key differs from the first answer.
fn difference(command: &Command, first: &Answer, again: &Answer) -> Option<String> {
    // A command that changed nothing is decided anew. The checks of the log find out whether that
    // is right here.
    let may_be_nothing = matches!(command.action, Action::Cancel { .. } | Action::Move { .. })
        || first.problem.as_deref() == Some("email-taken");
    if may_be_nothing && !again.replayed {
        return None;
    }
    if !again.replayed {
        return Some(format!("the answer is not marked as replayed: {again:?}"));
    }
    let same = first.essence() == again.essence() && first.body == again.body;
    (!same).then(|| format!("first {first:?}, then {again:?}"))
}

/// Reads the caller from a token.
fn caller_of(token: &str) -> Result<Caller> {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let claims = token.split('.').nth(1).context("no token")?;
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?;
    let text =
        |name: &str| claims[name].as_str().map(str::to_owned).with_context(|| format!("no {name}"));
    Ok(Caller { issuer: text("iss")?, subject: text("sub")? })
}
