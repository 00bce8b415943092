//! The shop and its good clients, who read and place orders at a fixed rate.

use super::args::Args;
use crate::{
    measure::{latencies, record},
    program::Program,
};
use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use futures::{StreamExt, TryStreamExt, stream};
use hdrhistogram::Histogram;
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

/// The e-mail address of the first customer.
pub const TAKEN: &str = "taken@example.org";

/// Customers who order.
const CUSTOMERS: u32 = 20;

/// Orders that are there before the measurement. The good clients read these.
const ORDERS: u32 = 200;

/// Units of each product, so many that none sells out.
const PLENTY: u32 = 900_000_000;

/// Concurrent requests while the shop is being filled.
const FILLING: usize = 16;

/// How long a good client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the good clients saw.
pub struct Seen {
    /// Latencies of reads, in µs.
    pub reads: Histogram<u64>,
    /// Latencies of orders, in µs, until they are confirmed.
    pub orders: Histogram<u64>,
    /// Requests that did not succeed.
    pub failed: u64,
    /// Why the first of them failed.
    pub failure: Option<String>,
}

impl Seen {
    /// Nothing seen yet.
    ///
    /// # Errors
    /// Never.
    pub fn new() -> Result<Self> {
        Ok(Self { reads: latencies()?, orders: latencies()?, failed: 0, failure: None })
    }

    /// Adds what was seen at another time.
    ///
    /// # Errors
    /// Never.
    pub fn add(&mut self, other: &Self) -> Result<()> {
        self.reads.add(&other.reads)?;
        self.orders.add(&other.orders)?;
        self.failed += other.failed;
        self.failure = self.failure.take().or_else(|| other.failure.clone());
        Ok(())
    }
}

/// A shop that runs, with the staff's token.
pub struct Shop {
    http: Client,
    base: String,
    token: String,
    products: Vec<Value>,
    customers: Vec<Value>,
    orders: Vec<Value>,
}

impl Shop {
    /// Fills the shop of a program that has none.
    ///
    /// # Errors
    /// When a request does not succeed.
    pub async fn fill(program: &Program, args: &Args) -> Result<Self> {
        let http = Client::builder().no_proxy().timeout(PATIENCE).build()?;
        let base = format!("http://{}", program.address);
        let none = Vec::new;
        let mut shop = Self {
            http,
            base,
            token: program.token.clone(),
            products: none(),
            customers: none(),
            orders: none(),
        };
        shop.products = shop.fill_with(args.products, "product_id", Self::add_product).await?;
        shop.customers = shop.fill_with(CUSTOMERS, "customer_id", Self::register).await?;
        shop.orders = shop.fill_with(ORDERS, "order_id", Self::place).await?;
        Ok(shop)
    }

    async fn fill_with(
        &self,
        count: u32,
        id: &str,
        request: fn(&Self, u32) -> RequestBuilder,
    ) -> Result<Vec<Value>> {
        let one = |number| async move {
            let made = self.json(request(self, number), StatusCode::CREATED).await?;
            anyhow::Ok(made[id].clone())
        };
        stream::iter(0..count).map(one).buffered(FILLING).try_collect().await
    }

    /// The id of the customer with the address [`TAKEN`].
    ///
    /// # Errors
    /// When there is none.
    pub fn customer(&self) -> Result<&str> {
        self.customers.first().and_then(Value::as_str).context("the shop has no customer")
    }

    /// The cursor that a list gives out after its first item.
    ///
    /// # Errors
    /// When the list has no second page.
    pub async fn cursor(&self, list: &str) -> Result<String> {
        let page = self.json(self.get(&format!("/api/v1/{list}?limit=1")), StatusCode::OK).await?;
        Ok(page["next_cursor"].as_str().context("the list has one page only")?.to_owned())
    }

    /// The metrics of the program.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metrics(&self) -> Result<String> {
        Ok(self.get("/metrics").send().await?.error_for_status()?.text().await?)
    }

    /// Reads the OpenAPI document.
    ///
    /// # Errors
    /// When the program does not answer.
    pub async fn document(&self) -> Result<()> {
        self.json(self.get("/openapi.json"), StatusCode::OK).await.map(drop)
    }

    /// Whether the program says that it is ready.
    pub async fn is_ready(&self) -> bool {
        let asked = self.get("/readyz").send().await;
        asked.is_ok_and(|answer| answer.status() == StatusCode::OK)
    }

    /// Reads and places orders at the rates of `args` until `ending`. A request counts from the
    /// moment at which it is due, whatever became of those before it.
    ///
    /// # Errors
    /// When a client panics.
    pub async fn trade(self: &Arc<Self>, args: &Args, ending: &CancellationToken) -> Result<Seen> {
        let seen = Arc::new(Mutex::new(Seen::new()?));
        let (mut reads, mut orders) = (ticks(args.reads), ticks(args.orders));
        let (mut clients, mut rng) = (JoinSet::new(), Rng::with_seed(7));
        loop {
            let is_read = tokio::select! {
                () = ending.cancelled() => break,
                _ = reads.tick() => true,
                _ = orders.tick() => false,
            };
            let (shop, seen, number) = (Arc::clone(self), Arc::clone(&seen), rng.u32(..));
            clients.spawn(async move {
                let began = Instant::now();
                let asked =
                    if is_read { shop.read(number).await } else { shop.order(number).await };
                let took = began.elapsed();
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                match asked {
                    Ok(()) if is_read => record(&mut seen.reads, took),
                    Ok(()) => record(&mut seen.orders, took),
                    Err(error) => {
                        seen.failed += 1;
                        seen.failure.get_or_insert_with(|| format!("{error:#}"));
                    }
                }
            });
            while let Some(ended) = clients.try_join_next() {
                ended.context("a client panicked")?;
            }
        }
        while let Some(ended) = clients.join_next().await {
            ended.context("a client panicked")?;
        }
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::replace(&mut *seen, Seen::new()?))
    }

    async fn read(&self, number: u32) -> Result<()> {
        let order = pick(&self.orders, number).as_str().context("no id")?;
        self.json(self.get(&format!("/api/v1/orders/{order}")), StatusCode::OK).await.map(drop)
    }

    async fn order(&self, number: u32) -> Result<()> {
        let order = self.json(self.place(number), StatusCode::CREATED).await?;
        ensure!(order["status"] == "confirmed", "an order is {}", order["status"]);
        Ok(())
    }

    fn place(&self, number: u32) -> RequestBuilder {
        let line = |number| json!({ "product_id": pick(&self.products, number), "quantity": 1 });
        let body = json!({
            "customer_id": pick(&self.customers, number),
            "items": [line(number), line(number.wrapping_add(1))],
            "payment_method": "pm_card_visa",
        });
        self.post("/orders", &body)
    }

    fn add_product(&self, number: u32) -> RequestBuilder {
        let body = json!({
            "name": format!("The Book of Number {number}"),
            "description": "A book like many others, for those who like many books.",
            "category": format!("shelf {}", number % 20),
            "price": { "amount": 399 + number % 4_000, "currency": "GBP" },
            "initial_stock": PLENTY,
        });
        self.post("/products", &body)
    }

    fn register(&self, number: u32) -> RequestBuilder {
        let email = match number {
            0 => TAKEN.to_owned(),
            _ => format!("reader.{number}@example.org"),
        };
        let body = json!({ "email": email, "first_name": "Ada", "last_name": "Reader" });
        self.post("/customers", &body)
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.http.get(format!("{}{path}", self.base)).bearer_auth(&self.token)
    }

    fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        let url = format!("{}/api/v1{path}", self.base);
        self.http.post(url).bearer_auth(&self.token).json(body)
    }

    async fn json(&self, request: RequestBuilder, expected: StatusCode) -> Result<Value> {
        let answer = request.send().await?;
        let (status, body) = (answer.status(), answer.bytes().await?);
        let text = || String::from_utf8_lossy(&body);
        ensure!(status == expected, "{status} instead of {expected}: {}", text());
        serde_json::from_slice(&body).with_context(|| text().into_owned())
    }
}

fn pick(of: &[Value], number: u32) -> &Value {
    // The shop is never empty when it is used.
    of.get(number as usize % of.len().max(1)).unwrap_or(&Value::Null)
}

fn ticks(per_second: u32) -> tokio::time::Interval {
    let mut ticks = interval(Duration::from_secs(1) / per_second);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    ticks
}
