//! The clients: many at once, each with one command under way, which it sends until it knows what became of it.

use super::history::{Answer, Asked, Caller, Command, Reply, Told};
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

/// Orders whose later life is still of interest.
const KNOWN_ORDERS: usize = 2_000;

/// A program that does not say for so long whether it is ready is not.
const READY: Duration = Duration::from_secs(5);

/// Commands under way while the shop is filled.
const FILLING: usize = 16;

/// A client gives a command up after this.
const PATIENCE: Duration = Duration::from_secs(90);

/// The first and the longest rest between two attempts.
const REST: Duration = Duration::from_millis(100);
const LONGEST_REST: Duration = Duration::from_secs(2);

/// What all clients share.
pub struct Traffic {
    http: Client,
    token: String,
    caller: Caller,
    seed: u64,
    /// Where the program is; several while another takes over.
    pub targets: watch::Sender<Vec<String>>,
    numbers: AtomicU64,
    acknowledged: AtomicU64,
    requests: AtomicU64,
    replays: AtomicU64,
    shop: Mutex<Shop>,
    told: Mutex<Vec<Told>>,
    /// Answers to repeated keys that were not the first ones.
    differing: Mutex<Vec<String>>,
}

#[derive(Default)]
struct Shop {
    products: Vec<Uuid>,
    customers: Vec<Uuid>,
    /// Orders and where they were seen last.
    orders: Vec<(Uuid, &'static str)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Traffic {
    /// Clients with this token.
    ///
    /// # Errors
    /// When the token says nothing.
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
            told: Mutex::default(),
            differing: Mutex::default(),
        })
    }

    /// Whether the program there says that it is ready.
    pub async fn is_ready(&self, target: &str) -> bool {
        let asked = self.http.get(format!("{target}/readyz")).timeout(READY).send().await;
        asked.is_ok_and(|answer| answer.status().is_success())
    }

    /// Commands made so far.
    pub fn sent(&self) -> u64 {
        self.numbers.load(Relaxed)
    }

    /// Commands acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Relaxed)
    }

    /// Requests sent so far, and how many of them repeated a key that was answered before.
    pub fn requests(&self) -> (u64, u64) {
        (self.requests.load(Relaxed), self.replays.load(Relaxed))
    }

    /// All commands and what came of them; to be asked when no client runs any more.
    pub fn take(&self) -> (Vec<Told>, Vec<String>) {
        (std::mem::take(&mut *lock(&self.told)), std::mem::take(&mut *lock(&self.differing)))
    }

    /// Fills the shop.
    ///
    /// # Errors
    /// When it does not take the goods.
    pub async fn fill(&self, products: usize, customers: usize) -> Result<()> {
        let mut rng = Rng::with_seed(self.seed);
        let filling = (0..products + customers).map(|nth| {
            let (number, key) = self.number();
            let command = if nth < products {
                let body = json!({
                    "name": format!("The Book of Number {nth}"),
                    "price": {"amount": rng.i64(399..6_000), "currency": "GBP"},
                    // Some run out again and again.
                    "initial_stock": if nth % 5 == 0 { 20 } else { 5_000 },
                });
                self.command(Asked::Product, Method::POST, "/api/v1/products".into(), key, body)
            } else {
                self.register(number, key, false)
            };
            let mut rng = rng.fork();
            async move {
                let began = Instant::now();
                let mut told = self.until_known(command, &mut rng, false).await;
                // A client may hang up and lose interest, on a slow machine one of 210 does: here it comes back.
                let wrong = |told: &Told| matches!(told.replies.last(), Some(Reply::Wrong(_)));
                while told.answer().is_none() && !wrong(&told) && began.elapsed() < PATIENCE {
                    let again = self.until_known(told.command.clone(), &mut rng, false).await;
                    told.replies.extend(again.replies);
                }
                told.acknowledgement()
                    .with_context(|| format!("not filled: {:?}", told.replies))?;
                self.note(told);
                anyhow::Ok(())
            }
        });
        stream::iter(filling).buffer_unordered(FILLING).try_collect().await
    }

    fn number(&self) -> (u64, String) {
        let number = self.numbers.fetch_add(1, Relaxed);
        (number, format!("{:x}-{number}", self.seed))
    }

    /// One client: sends commands until `until` says that it is enough.
    pub async fn client(self: Arc<Self>, nth: u64, until: watch::Receiver<bool>) {
        let mut rng = Rng::with_seed(self.seed ^ (nth + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        while !*until.borrow() {
            if rng.u8(..) < 15 {
                self.repeat(&mut rng).await;
            }
            let command = self.next(&mut rng);
            let twins = rng.u8(..) < 10;
            let told = self.until_known(command, &mut rng, twins).await;
            self.note(told);
        }
    }

    fn command(
        &self,
        asked: Asked,
        method: Method,
        path: String,
        key: String,
        body: Value,
    ) -> Command {
        let id = Command::id(&self.caller, &method, &path, &key);
        Command { asked, key, id, method, path, body }
    }

    fn register(&self, number: u64, key: String, contended: bool) -> Command {
        // A few addresses that many want.
        let name = if contended { number % 7 } else { number };
        let mark = if contended { "wanted" } else { "reader" };
        let body = json!({
            "email": format!("{mark}.{name}@example.org"), "first_name": "Ada", "last_name": "Byron",
        });
        self.command(Asked::Register, Method::POST, "/api/v1/customers".into(), key, body)
    }

    /// What a client does next.
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
                self.command(Asked::Cancel { order }, Method::POST, path, key, body)
            }
            (15..=29, Some(nth)) => {
                let (order, seen) = shop.orders[nth];
                let to = match seen {
                    "confirmed" => ["processing", "shipped"][rng.usize(..2)],
                    "processing" => "shipped",
                    _ => "delivered",
                };
                let path = format!("/api/v1/orders/{order}/status");
                let asked = Asked::Move { order, to };
                self.command(asked, Method::PATCH, path, key, json!({"status": to}))
            }
            (30..=59, _) => {
                let product = shop.products[rng.usize(..shop.products.len())];
                let quantity = if rng.u8(..) < 60 { -rng.i64(1..10) } else { rng.i64(1..20) };
                let reason = if quantity < 0 { "correction" } else { "received" };
                let path = format!("/api/v1/products/{product}/stock");
                let body = json!({"quantity": quantity, "reason": reason});
                self.command(Asked::Stock { product, quantity }, Method::POST, path, key, body)
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
        self.command(Asked::Order, Method::POST, "/api/v1/orders".into(), key, body)
    }

    /// Sends a command until it is answered, its client loses patience, or loses interest.
    pub async fn until_known(&self, command: Command, rng: &mut Rng, twins: bool) -> Told {
        let began = Instant::now();
        let mut told = Told { command, replies: Vec::new(), twins };
        let mut rest = REST;
        loop {
            // Some clients hang up early.
            let seconds = if rng.u8(..) < 12 { 1 } else { 20 };
            let patience = Duration::from_secs(seconds);
            if twins && told.replies.is_empty() {
                let mut other = rng.fork();
                let one = self.attempt(&told.command, rng, patience);
                let two = self.attempt(&told.command, &mut other, patience);
                let (one, two) = tokio::join!(one, two);
                told.replies.extend([one, two]);
            } else {
                told.replies.push(self.attempt(&told.command, rng, patience).await);
            }
            let known =
                told.answer().is_some() || matches!(told.replies.last(), Some(Reply::Wrong(_)));
            let gives_up = rng.u8(..) < 8 || began.elapsed() > PATIENCE;
            if known || gives_up {
                return told;
            }
            sleep(rest + Duration::from_millis(rng.u64(..100))).await;
            rest = (rest * 2).min(LONGEST_REST);
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

    /// Sends an old key once more.
    async fn repeat(&self, rng: &mut Rng) {
        let old = {
            let told = lock(&self.told);
            let nth = (!told.is_empty()).then(|| rng.usize(..told.len()));
            nth.map(|nth| told[nth].clone())
        };
        if let Some(old) = old {
            self.replay(&old, rng).await;
        }
    }

    /// Sends an acknowledged key once more: it must get the first answer again. `false` when it got none.
    pub async fn replay(&self, old: &Told, rng: &mut Rng) -> bool {
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

    /// Takes in what came of a command.
    pub fn note(&self, told: Told) {
        if let Some(answer) = told.acknowledgement() {
            self.acknowledged.fetch_add(1, Relaxed);
            let mut shop = lock(&self.shop);
            let created = told.command.stream().id;
            match (&told.command.asked, answer.status) {
                (Asked::Product, 201) => shop.products.push(created),
                (Asked::Register, 201) => shop.customers.push(created),
                (Asked::Order, 201) => shop.see(created, "confirmed"),
                (Asked::Move { order, to }, 200) => shop.see(*order, to),
                (Asked::Cancel { order }, 200) => shop.see(*order, "cancelled"),
                _ => {}
            }
        }
        lock(&self.told).push(told);
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

/// How an answer to a repeated key is not the first one.
fn difference(command: &Command, first: &Answer, again: &Answer) -> Option<String> {
    // What changed nothing is decided anew; whether these did, the log tells.
    let may_be_nothing = matches!(command.asked, Asked::Cancel { .. } | Asked::Move { .. });
    if may_be_nothing && !again.replayed {
        return None;
    }
    if !again.replayed {
        return Some(format!("it does not say that it was answered before: {again:?}"));
    }
    let same = first.essence() == again.essence() && first.body == again.body;
    (!same).then(|| format!("first {first:?}, then {again:?}"))
}

/// What a token says of its bearer.
fn caller_of(token: &str) -> Result<Caller> {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let claims = token.split('.').nth(1).context("no token")?;
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?;
    let text =
        |name: &str| claims[name].as_str().map(str::to_owned).with_context(|| format!("no {name}"));
    Ok(Caller { issuer: text("iss")?, subject: text("sub")? })
}
