//! The command line.

use crate::measure::Load;
use clap::{Parser, ValueEnum, value_parser};
use std::{path::PathBuf, time::Duration};

const LEGEND: &str = "\
The table: latencies are a client's, in a closed loop. `events/s` and `events/batch` count what
reached the log. `cpu` is this process's, clients included and the database not. `of the floor` is
events/s by the rows/s of the raw storage in the same run: SQLite or Kafka with batches of as many
rows as there are clients, or COPY into a table without index.";

/// Measures orderlog, and the floor below it.
#[derive(Clone, Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
#[command(name = "load", bin_name = "cargo bench -p bench --bench load --", after_help = LEGEND)]
pub struct Args {
    /// What to measure; without it, this help.
    pub workload: Option<Workload>,

    /// Where the log is kept.
    #[arg(long, value_enum, default_value_t = LogKind::Embedded)]
    pub log: LogKind,

    /// How commands and queries get there.
    #[arg(long, value_enum, default_value_t = Over::Process)]
    pub over: Over,

    /// Clients at once, each with one operation under way.
    #[arg(long, default_value_t = 64, value_parser = value_parser!(u16).range(1..=8192))]
    pub clients: u16,

    /// Seconds that are measured.
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u64).range(1..=600))]
    pub seconds: u64,

    /// Seconds before that.
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u64).range(0..=600))]
    pub warm_up: u64,

    /// Partitions of the log.
    #[arg(long, default_value_t = 12, value_parser = value_parser!(u32).range(1..=1024))]
    pub partitions: u32,

    /// Products that the load is spread over; `hot` and `hot-order` use one.
    #[arg(long, default_value_t = 1000, value_parser = value_parser!(u32).range(2..=1_000_000))]
    pub products: u32,

    /// Customers who order.
    #[arg(long, default_value_t = 1000, value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub customers: u32,

    /// Events in the log that `project`, `rebuild`, `start`, `beside` and `floor-copy` read, about; `query`
    /// reads a tenth of them [default: 1000000 for `rebuild`, `start` and `beside`, 200000 for the others].
    #[arg(long, value_parser = value_parser!(u64).range(1_000..=20_000_000))]
    pub events: Option<u64>,

    /// Each command with an idempotency key of its own, as a careful client sends it.
    #[arg(long)]
    pub keyed: bool,

    /// The rebuilds of `beside` take little of the machine.
    #[arg(long)]
    pub throttle: bool,

    /// Which read models `rebuild` and `beside` build anew, all of them at the same time; without it, each in turn.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub model: Vec<Model>,

    /// Rows a commit, and bytes of a body, of `floor-embedded` and `floor-kafka`.
    #[arg(long, value_name = "ROWS")]
    #[arg(value_parser = value_parser!(u32).range(1..=100_000))]
    pub batch: Option<u32>,

    /// Kafka, for `--log kafka` and `floor-kafka`; each run has a topic of its own there and
    /// deletes it.
    #[arg(long, env = "KAFKA_BOOTSTRAP_SERVERS", value_name = "HOST:PORT")]
    pub kafka: Option<String>,

    /// Where the files of the run lie until its end; a disk, not memory [default: the system's
    /// temporary folder].
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// Without the floor below it.
    #[arg(long)]
    pub no_floor: bool,

    /// Which of the program's log lines go to standard error, in the syntax of tracing's filters.
    #[arg(long, env = "RUST_LOG", default_value = "warn", value_name = "FILTER")]
    pub log_filter: String,

    /// What cargo passes to benchmarks.
    #[arg(long, hide = true)]
    pub bench: bool,
}

impl Args {
    /// How hard, and for how long.
    pub fn load(&self) -> Load {
        Load {
            clients: usize::from(self.clients),
            warm_up: Duration::from_secs(self.warm_up),
            measured: Duration::from_secs(self.seconds),
        }
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// One command, one event, spread over the products.
    Append,
    /// The same, all on one product.
    Hot,
    /// Whole orders of two lines, from placing to confirmation: customer, stock, price, sandbox
    /// payment.
    Order,
    /// Whole orders of one line, all for one product.
    HotOrder,
    /// Reads: half an order, a third a product, a sixth the list of a customer's orders.
    Query,
    /// Reads of orders and products over HTTP: whole, by callers who hold them, and of nothing, which asks no read model.
    Held,
    /// Searches of a catalogue of `--products`, each sort of question on a line of its own.
    Search,
    /// A log of orders into all read models.
    Project,
    /// A read model built anew from the same log beside the serving one, and switched to.
    Rebuild,
    /// The whole program from its start until it is ready, with snapshots and without, on a log of orders.
    Start,
    /// Queries and lag while orders arrive at half of what the node can take: alone, and beside rebuilds.
    Beside,
    /// Raw `SQLite` commits.
    FloorEmbedded,
    /// Raw Kafka transactions, one lane.
    FloorKafka,
    /// Raw `COPY` of the history's rows, without and with indexes.
    FloorCopy,
    /// The table of the README: all of the above on all logs that are at hand.
    All,
}

/// Where the log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogKind {
    /// `SQLite` in a temporary folder.
    Embedded,
    /// The Kafka that `--kafka` names.
    Kafka,
    /// Nowhere: what the rest costs.
    Memory,
}

/// How commands and queries get there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Over {
    /// By function calls, without HTTP and authentication.
    Process,
    /// Through the whole program, on a loopback socket.
    Http,
}

/// A read model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Model {
    /// Orders.
    Orders,
    /// Products.
    Products,
    /// Customers.
    Customers,
    /// Every event.
    History,
    /// Wishlists.
    Wishlists,
    /// The words of products.
    Search,
    /// Sums of sales.
    Sales,
}

/// The name on the command line.
pub fn name(value: impl ValueEnum + Copy) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
