//! Run it with `cargo bench --bench live -- [OPTIONS]`. It measures what clients that
//! listen to the events of orders cost the program.

#![allow(
    clippy::disallowed_methods,
    reason = "the harness measures real time, and its clients are its own tasks"
)]

use anyhow::{Context, Result, ensure};
use clap::Parser;
use futures::future::try_join_all;
use reqwest::Client;
use serde_json::{Value, json};
use std::{
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

/// The longest time to wait for anything.
const PATIENCE: Duration = Duration::from_mins(3);
/// The number of orders that clients listen to.
const LISTENED: usize = 500;
/// Clock ticks per second in `/proc` on Linux.
const TICKS: f64 = 100.0;

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

struct Program {
    child: Child,
    address: String,
    token: String,
    _dir: tempfile::TempDir,
}

impl Program {
    async fn start(args: &Args) -> Result<Self> {
        let beside = std::env::current_exe()?;
        let beside = beside
            .parent()
            .and_then(|deps| deps.parent())
            .context("this harness is not in a target folder")?;
        let program = args.program.clone().unwrap_or_else(|| beside.join("orderlog"));
        // The user account of a private PostgreSQL must be able to read it.
        let open = std::fs::Permissions::from_mode(0o755);
        let dir = tempfile::Builder::new().prefix("live-").permissions(open).tempdir()?;
        let mut command = Command::new(&program);
        command.env_clear().env("DATA_DIR", dir.path().join("data"));
        command.env("LISTEN_ADDR", "127.0.0.1:0").env("RUST_LOG", "error");
        command.env("RATE_LIMIT_PER_SECOND", "0").env("RATE_LIMIT_PER_ADDRESS", "0");
        command.env("CONNECTIONS_PER_ADDRESS", "0").env("REQUESTS_PER_ADDRESS", "0");
        command.env("REGISTRATIONS_PER_MINUTE", "0").env("OPEN_ORDERS_PER_CUSTOMER", "0");
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| program.display().to_string())?;
        let mut lines =
            BufReader::new(child.stdout.take().context("the program has no standard output")?)
                .lines();
        let (mut address, mut token) = (None, None);
        while token.is_none() {
            let line = timeout(PATIENCE, lines.next_line()).await??.context("the program ended")?;
            let word = |start: &str| line.split(' ').find_map(|word| word.strip_prefix(start));
            address = address.or_else(|| word("http://").map(str::to_owned));
            token = word("eyJ").map(|rest| format!("eyJ{rest}"));
        }
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let (address, token) =
            (address.context("the program printed no address")?, token.context("no token")?);
        Ok(Self { child, address, token, _dir: dir })
    }

    /// Stops the program with SIGTERM, so that its PostgreSQL ends too.
    async fn stop(&mut self) -> Result<()> {
        let id = self.child.id().context("the program has ended")?;
        Command::new("kill").arg("-TERM").arg(id.to_string()).status().await?;
        timeout(PATIENCE, self.child.wait()).await??;
        Ok(())
    }

    fn proc(&self, file: &str) -> Result<String> {
        let id = self.child.id().context("the program has ended")?;
        Ok(std::fs::read_to_string(format!("/proc/{id}/{file}"))?)
    }

    /// Resident memory, in KiB.
    fn memory(&self) -> Result<f64> {
        let status = self.proc("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        Ok(number.context("no VmRSS")?.parse()?)
    }

    /// Processor time so far, in seconds.
    fn cpu(&self) -> Result<f64> {
        let stat = self.proc("stat")?;
        let fields = stat.rsplit_once(')').context("no stat")?.1.split_whitespace();
        let times: Vec<f64> = fields.skip(11).take(2).filter_map(|it| it.parse().ok()).collect();
        Ok(times.iter().sum::<f64>() / TICKS)
    }

    async fn post(&self, client: &Client, path: &str, body: Value) -> Result<Value> {
        let url = format!("http://{}/api/v1{path}", self.address);
        let answer = client.post(url).bearer_auth(&self.token).json(&body).send().await?;
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
        let (began, before) = (Instant::now(), self.cpu()?);
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
        Ok((f64::from(placed) / seconds, (self.cpu()? - before) / seconds))
    }

    /// Listens to an order, and counts it in `heard` once its confirmation has arrived.
    async fn listen(&self, order: &Value, heard: Arc<AtomicUsize>) -> Result<()> {
        let mut stream = TcpStream::connect(&self.address).await?;
        let (order, token) = (order.as_str().context("no id")?, &self.token);
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
    let mut program = Program::start(args).await?;
    let measured = measure(args, &program).await;
    program.stop().await?;
    measured
}

async fn measure(args: &Args, program: &Program) -> Result<()> {
    let client = Client::builder().no_proxy().build()?;
    let person = json!({ "email": "a@example.org", "first_name": "A", "last_name": "Reader" });
    let customer = program.post(&client, "/customers", person).await?["customer_id"].clone();
    let price = json!({ "amount": 100, "currency": "GBP" });
    let book = json!({ "name": "A book", "price": price, "initial_stock": 900_000_000 });
    let product = program.post(&client, "/products", book).await?["product_id"].clone();
    let mut orders = Vec::new();
    for _ in 0..LISTENED {
        orders.push(program.order(&client, &customer, &product).await?);
    }
    let (alone, alone_cpu) = program.flow(args, &customer, &product).await?;
    println!("no listeners:         {alone:.0} orders/s, {alone_cpu:.2} processors");
    sleep(Duration::from_secs(5)).await;

    let (memory, heard) = (program.memory()?, Arc::new(AtomicUsize::new(0)));
    for number in 0..args.listeners {
        program.listen(&orders[number % LISTENED], Arc::clone(&heard)).await?;
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
    let each = (program.memory()? - memory) / args.listeners as f64;
    println!("{} listeners:       {each:.1} KiB each", args.listeners);
    let before = program.cpu()?;
    sleep(Duration::from_secs(args.seconds)).await;
    #[expect(clippy::cast_precision_loss, reason = "a few seconds")]
    let idle = (program.cpu()? - before) / args.seconds as f64;
    println!("listeners, no orders: {idle:.3} processors");
    let (busy, busy_cpu) = program.flow(args, &customer, &product).await?;
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
