//! `orderlog demo`: adds books, customers and a stream of orders over HTTP.

use anyhow::{Context, bail};
use events::{Environment, environment::System};
use futures::{StreamExt, TryStreamExt, stream};
use indicatif::ProgressBar;
use orderlog::{
    auth::{AuthKeys, Role},
    config::Config,
    data_dir::DataDir,
    startup,
};
use reqwest::Client;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use uuid::Uuid;

const BOOKS: [(&str, &str, i64); 12] = [
    ("Pride and Prejudice", "novels", 899),
    ("Moby-Dick", "novels", 1199),
    ("Middlemarch", "novels", 1299),
    ("Frankenstein", "novels", 799),
    ("The Time Machine", "science fiction", 699),
    ("Twenty Thousand Leagues Under the Sea", "science fiction", 1099),
    ("The War of the Worlds", "science fiction", 749),
    ("On the Origin of Species", "science", 1599),
    ("Elements", "science", 2499),
    ("Meditations", "philosophy", 649),
    ("Walden", "philosophy", 849),
    ("The Art of War", "philosophy", 599),
];

/// Copies of each book that each run adds.
const COPIES: i64 = 1_000;

/// Customers that each run registers.
const READERS: u32 = 20;

/// The most requests under way.
const AT_ONCE: usize = 16;

/// Longer than the server takes to answer 503.
const TIMEOUT: Duration = Duration::from_secs(90);

#[derive(clap::Args)]
pub struct Args {
    /// How many orders to place.
    #[arg(long, value_name = "N", default_value_t = 500)]
    orders: u32,
    /// Another server than the one of the data directory, such as <http://127.0.0.1:8080>.
    #[arg(long, value_name = "URL", requires = "token")]
    url: Option<String>,
    /// A staff token of that server.
    #[arg(long)]
    token: Option<String>,
}

/// The shop, with a staff token.
struct Shop {
    client: Client,
    url: String,
    token: String,
    currency: String,
    /// Part of the idempotency keys of this run, so that they differ from those of other runs.
    run: Uuid,
}

pub async fn run(config: &Config, args: Args) -> anyhow::Result<()> {
    let shop = Shop::find(config, args.url, args.token)?;
    let books: Vec<Uuid> = stream::iter(0..BOOKS.len())
        .map(|index| shop.stock_book(index))
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    let readers: Vec<Uuid> = stream::iter(0..READERS)
        .map(|number| shop.register(number))
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    super::print(&format!("{} books, {} readers", books.len(), readers.len()))?;
    let bar = ProgressBar::new(args.orders.into());
    let mut outcomes = BTreeMap::<String, u32>::new();
    let mut orders = stream::iter(0..args.orders)
        .map(|number| shop.order(number, &books, &readers))
        .buffer_unordered(AT_ONCE);
    while let Some(outcome) = orders.try_next().await? {
        *outcomes.entry(outcome).or_default() += 1;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let seconds = bar.elapsed().as_secs_f64();
    super::print(&format!("{} orders in {seconds:.1} s:", args.orders))?;
    for (outcome, count) in outcomes {
        super::print(&format!("  {count:6} {outcome}"))?;
    }
    super::print(&format!("to look at them, open {}/docs", shop.url))?;
    Ok(())
}

impl Shop {
    fn find(config: &Config, url: Option<String>, token: Option<String>) -> anyhow::Result<Self> {
        let url = match url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => match DataDir::announced(&config.data_dir)? {
                Some(announced) => announced.url(),
                None => bail!(
                    "no server is running on the data directory {}: start one, or use --url",
                    config.data_dir.display()
                ),
            },
        };
        let token = if let Some(token) = token {
            token
        } else {
            let keys = AuthKeys::load_or_create(&startup::auth_key_path(&config.data_dir))?;
            startup::sign(&keys, Role::Staff, None)?
        };
        Ok(Self {
            client: Client::builder().timeout(TIMEOUT).build()?,
            url,
            token,
            currency: config.currency.to_string(),
            run: System::new().uuid(),
        })
    }

    /// Posts with an idempotency key. Returns status and body of the answer.
    async fn post(&self, path: &str, key: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
        let response = self
            .client
            .post(format!("{}/api/v1{path}", self.url))
            .bearer_auth(&self.token)
            .header("idempotency-key", key)
            .json(body)
            .send()
            .await
            .with_context(|| format!("{} does not answer", self.url))?;
        Ok((response.status().as_u16(), response.json().await?))
    }

    async fn created(&self, path: &str, key: &str, body: &Value, id: &str) -> anyhow::Result<Uuid> {
        let (status, body) = self.post(path, key, body).await?;
        let id = body[id].as_str().and_then(|id| Uuid::try_parse(id).ok());
        id.with_context(|| format!("{path} answered {status}: {body}"))
    }

    /// Adds a book, which is the same in every run, and more copies of it.
    async fn stock_book(&self, index: usize) -> anyhow::Result<Uuid> {
        let (name, category, price) = BOOKS[index];
        let price = json!({"amount": price, "currency": self.currency});
        let book = json!({"name": name, "category": category, "price": price});
        let id =
            self.created("/products", &format!("demo-book-{index}"), &book, "product_id").await?;
        let stock = json!({"quantity": COPIES, "reason": "received"});
        let key = format!("demo-stock-{}-{index}", self.run);
        let (status, body) = self.post(&format!("/products/{id}/stock"), &key, &stock).await?;
        if status != 200 {
            bail!("{name}: the change of stock was answered with {status}: {body}");
        }
        Ok(id)
    }

    async fn register(&self, number: u32) -> anyhow::Result<Uuid> {
        let reader = json!({
            "email": format!("reader-{number}.{}@example.org", self.run.simple()),
            "first_name": "Reader",
            "last_name": format!("Number {number}"),
        });
        let key = format!("demo-reader-{}-{number}", self.run);
        self.created("/customers", &key, &reader, "customer_id").await
    }

    /// Places an order of one to three books. Returns its status, or the name of the problem.
    async fn order(&self, number: u32, books: &[Uuid], readers: &[Uuid]) -> anyhow::Result<String> {
        // The strides have no common divisor with the number of books, so that all pairs occur.
        let pick = |nth: usize| books[(number as usize * 5 + nth * 7) % books.len()];
        let lines: Vec<Value> = (0..=number as usize % 3)
            .map(|nth| json!({"product_id": pick(nth), "quantity": 1 + number % 2}))
            .collect();
        let payment_method = if number % 25 == 24 { "pm_card_declined" } else { "pm_card_visa" };
        let order = json!({
            "customer_id": readers[number as usize % readers.len()],
            "items": lines,
            "payment_method": payment_method,
        });
        let key = format!("demo-order-{}-{number}", self.run);
        let (status, body) = self.post("/orders", &key, &order).await?;
        let outcome = body["status"].as_str().or_else(|| {
            let kind = body["type"].as_str()?;
            Some(kind.trim_start_matches("/problems/"))
        });
        Ok(outcome.map_or_else(|| status.to_string(), ToOwned::to_owned))
    }
}
