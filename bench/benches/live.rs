//! Run it with `cargo bench --bench live -- [OPTIONS]`. It measures what clients that
//! listen to the events of orders cost the program.

#![allow(
    clippy::disallowed_methods,
    reason = "the harness measures real time, and its clients are its own tasks"
)]

use anyhow::{Context, Result, ensure};
use bench::program::Program;
use clap::Parser;
use futures::future::try_join_all;
use reqwest::Client;
use serde_json::{Value, json};
use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

/// The longest time to wait for anything.
const PATIENCE: Duration = Duration::from_mins(3);
/// The number of orders that clients listen to.
const LISTENED: usize = 500;

/// Measures what clients that listen to the events of orders cost the program, which runs in its
/// own process.
#[derive(Parser)]
#[command(name = "live", bin_name = "cargo bench --bench live --")]
struct Args {
    /// Number of listening clients; each has a connection (see `ulimit -n`).
    #[arg(long, default_value_t = 5_000)]
    listeners: usize,
    /// Number of clients that place orders, each one order after another.
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// Duration of each measurement, in seconds.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// The program to measure [default: `orderlog` in the target folder of this harness].
    #[arg(long)]
    program: Option<PathBuf>,
    #[arg(long, hide = true)]
    bench: bool,
}

/// The program, and what its clients do.
struct Live(Program);

impl Live {
    async fn start(args: &Args) -> Result<Self> {
        let settings = [
            ("RATE_LIMIT_PER_SECOND", "0"),
            ("RATE_LIMIT_PER_ADDRESS", "0"),
            ("CONNECTIONS_PER_ADDRESS", "0"),
            ("REQUESTS_PER_ADDRESS", "0"),
            ("REGISTRATIONS_PER_MINUTE", "0"),
            ("OPEN_ORDERS_PER_CUSTOMER", "0"),
        ];
        Ok(Self(Program::start(args.program.as_deref(), &settings).await?))
    }

    async fn post(&self, client: &Client, path: &str, body: Value) -> Result<Value> {
        let url = format!("http://{}/api/v1{path}", self.0.address);
        let answer = client.post(url).bearer_auth(&self.0.token).json(&body).send().await?;
        ensure!(answer.status() == 201, "{path}: {}", answer.text().await?);
        Ok(answer.json().await?)
    }

    async fn order(&self, client: &Client, customer: &Value, product: &Value) -> Result<Value> {
        let items = json!([{ "product_id": product, "quantity": 1 }]);
        let body =
            json!({ "customer_id": customer, "items": items, "payment_method": "pm_card_visa" });
        Ok(self.post(client, "/orders", body).await?["order_id"].clone())
    }

    /// Places orders for the measured time. Returns the orders per second and the number of
    /// processors that the program used.
    async fn flow(&self, args: &Args, customer: &Value, product: &Value) -> Result<(f64, f64)> {
        let (began, before) = (Instant::now(), self.0.cpu()?);
        let until = began + Duration::from_secs(args.seconds);
        let one = async |_| {
            let client = Client::builder().no_proxy().build()?;
            let mut placed = 0_u32;
            while Instant::now() < until {
                self.order(&client, customer, product).await?;
                placed += 1;
            }
            anyhow::Ok(placed)
        };
        let placed: u32 = try_join_all((0..args.clients).map(one)).await?.iter().sum();
        let seconds = began.elapsed().as_secs_f64();
        Ok((f64::from(placed) / seconds, (self.0.cpu()? - before) / seconds))
    }

    /// Listens to an order, and counts it in `heard` once its confirmation has arrived.
    async fn listen(&self, order: &Value, heard: Arc<AtomicUsize>) -> Result<()> {
        let mut stream = TcpStream::connect(self.0.address).await?;
        let (order, token) = (order.as_str().context("no id")?, &self.0.token);
        let request = format!(
            "GET /api/v1/orders/{order}/events HTTP/1.1\r\nHost: bench\r\n\
             Authorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        tokio::spawn(async move {
            let (mut bytes, mut confirmed) = ([0_u8; 2048], false);
            let mut text = Vec::new();
            while let Ok(read @ 1..) = stream.read(&mut bytes).await {
                if !confirmed {
                    text.extend_from_slice(&bytes[..read]);
                    confirmed = String::from_utf8_lossy(&text).contains("event: OrderConfirmed");
                    heard.fetch_add(usize::from(confirmed), Ordering::Relaxed);
                    text = if confirmed { Vec::new() } else { text };
                }
            }
        });
        Ok(())
    }
}

async fn run(args: &Args) -> Result<()> {
    let mut live = Live::start(args).await?;
    let measured = measure(args, &live).await;
    live.0.stop().await?;
    measured
}

async fn measure(args: &Args, live: &Live) -> Result<()> {
    let client = Client::builder().no_proxy().build()?;
    let person = json!({ "email": "a@example.org", "first_name": "A", "last_name": "Reader" });
    let customer = live.post(&client, "/customers", person).await?["customer_id"].clone();
    let price = json!({ "amount": 100, "currency": "GBP" });
    let book = json!({ "name": "A book", "price": price, "initial_stock": 900_000_000 });
    let product = live.post(&client, "/products", book).await?["product_id"].clone();
    let mut orders = Vec::new();
    for _ in 0..LISTENED {
        orders.push(live.order(&client, &customer, &product).await?);
    }
    let (alone, alone_cpu) = live.flow(args, &customer, &product).await?;
    println!("no listeners:         {alone:.0} orders/s, {alone_cpu:.2} processors");
    sleep(Duration::from_secs(5)).await;

    let (memory, heard) = (live.0.memory()?, Arc::new(AtomicUsize::new(0)));
    for number in 0..args.listeners {
        live.listen(&orders[number % LISTENED], Arc::clone(&heard)).await?;
    }
    let all = async {
        while heard.load(Ordering::Relaxed) < args.listeners {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, all)
        .await
        .context("some listeners did not receive the history of their order")?;
    sleep(Duration::from_secs(5)).await;
    #[expect(clippy::cast_precision_loss, reason = "a few thousands")]
    let each = (live.0.memory()? - memory) / args.listeners as f64;
    println!("{} listeners:       {each:.1} KiB each", args.listeners);
    let before = live.0.cpu()?;
    sleep(Duration::from_secs(args.seconds)).await;
    #[expect(clippy::cast_precision_loss, reason = "a few seconds")]
    let idle = (live.0.cpu()? - before) / args.seconds as f64;
    println!("listeners, no orders: {idle:.3} processors");
    let (busy, busy_cpu) = live.flow(args, &customer, &product).await?;
    println!("listeners and orders: {busy:.0} orders/s, {busy_cpu:.2} processors");
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    // Cargo passes this flag to a benchmark, but not when it runs the file as a test. A test run
    // must not start servers.
    if !std::env::args().any(|arg| arg == "--bench") {
        println!("live: measures under `cargo bench` only");
        return ExitCode::SUCCESS;
    }
    match run(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("live: {error:#}");
            ExitCode::FAILURE
        }
    }
}
