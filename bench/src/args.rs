//! The command line of the load harness.

use crate::measure::Load;
use clap::{
    Parser, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
    value_parser,
};
use projections::ReadModel;
use std::{path::PathBuf, time::Duration};

const LEGEND: &str = "\
How to read the table: latencies are those of a client in a closed loop. `events/s` and
`events/batch` count the events that reached the log. `cpu` is the processor time of this process,
which includes the clients but not the database. `of the floor` is events/s divided by the rows/s of
the raw storage in the same run. The raw storage is SQLite or Kafka with one row per client in a
batch, or COPY into a table without indexes.";

/// Measures orderlog, and the raw storage below it as a floor.
#[derive(Clone, Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
#[command(name = "load", bin_name = "cargo bench --bench load --", after_help = LEGEND)]
pub struct Args {
    /// What to measure. Without it, this help is printed.
    pub workload: Option<Workload>,

    /// Which log to use.
    #[arg(long, value_enum, default_value_t = LogKind::Embedded)]
    pub log: LogKind,

    /// How commands and queries reach the program.
    #[arg(long, value_enum, default_value_t = Over::Process)]
    pub over: Over,

    /// Number of concurrent clients, each with one operation in flight.
    #[arg(long, default_value_t = 64, value_parser = value_parser!(u16).range(1..=8192))]
    pub clients: u16,

    /// Measured time, in seconds.
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u64).range(1..=600))]
    pub seconds: u64,

    /// Warm-up time before it, in seconds.
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u64).range(0..=600))]
    pub warm_up: u64,

    /// Number of partitions of the log.
    #[arg(long, default_value_t = 12, value_parser = value_parser!(u32).range(1..=1024))]
    pub partitions: u32,

    /// Number of products that the load is spread over; `hot` and `hot-order` use one.
    #[arg(long, default_value_t = 1000, value_parser = value_parser!(u32).range(2..=1_000_000))]
    pub products: u32,

    /// Number of customers who order.
    #[arg(long, default_value_t = 1000, value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub customers: u32,

    /// Approximate number of events in the log that `project`, `rebuild`, `start`, `beside` and
    /// `floor-copy` read; `query` uses a tenth of it [default: 1000000 for `rebuild`, `start` and
    /// `beside`, 200000 for the others].
    #[arg(long, value_parser = value_parser!(u64).range(1_000..=20_000_000))]
    pub events: Option<u64>,

    /// Number of things of each kind that `memory` measures.
    #[arg(long, default_value_t = 1_000_000)]
    #[arg(value_parser = value_parser!(u64).range(1_000..=20_000_000))]
    pub count: u64,

    /// Send each command with its own idempotency key, as a careful client does.
    #[arg(long)]
    pub keyed: bool,

    /// Throttle the rebuilds of `beside`, so that they use little of the machine.
    #[arg(long)]
    pub throttle: bool,

    /// Read models that `rebuild` and `beside` rebuild, all at the same time. Without it they
    /// rebuild every read model, one after another.
    #[arg(long, value_delimiter = ',', value_parser = read_model())]
    pub model: Vec<ReadModel>,

    /// Rows per commit of `floor-embedded` and `floor-kafka`.
    #[arg(long, value_name = "ROWS")]
    #[arg(value_parser = value_parser!(u32).range(1..=100_000))]
    pub batch: Option<u32>,

    /// Address of Kafka, for `--log kafka` and `floor-kafka`. Each run creates its own topic and
    /// deletes it.
    #[arg(long, env = "KAFKA_BOOTSTRAP_SERVERS", value_name = "HOST:PORT")]
    pub kafka: Option<String>,

    /// Folder for the temporary files of the run; it must be on a disk, not in memory [default: the
    /// system's temporary folder].
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// Do not measure the floor.
    #[arg(long)]
    pub no_floor: bool,

    /// Which log lines of the program to print to standard error, in the filter syntax of
    /// `tracing`.
    #[arg(long, env = "RUST_LOG", default_value = "warn", value_name = "FILTER")]
    pub log_filter: String,

    /// The flag that Cargo passes to benchmarks.
    #[arg(long, hide = true)]
    pub bench: bool,
}

impl Args {
    /// The number of clients and the duration.
    pub fn load(&self) -> Load {
        Load {
            clients: usize::from(self.clients),
            warm_up: Duration::from_secs(self.warm_up),
            measured: Duration::from_secs(self.seconds),
        }
    }
}

/// The workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// One command with one event, spread over the products.
    Append,
    /// The same, but all commands go to one product.
    Hot,
    /// Whole orders with two lines, from the request to the confirmation: customer, stock, price,
    /// sandbox payment.
    Order,
    /// Whole orders with one line, all for the same product.
    HotOrder,
    /// Reads: one half of single orders, a third of single products, a sixth of the list of a
    /// customer's orders.
    Query,
    /// Reads of orders and products over HTTP: with a body, with `If-None-Match` (304), and of a
    /// missing path, which uses no read model.
    Held,
    /// Searches in a catalogue of `--products` products, with a line for each sort of query.
    Search,
    /// Projection of a log of orders into all read models.
    Project,
    /// Rebuild of a read model from the same log beside the serving one, including the switch.
    Rebuild,
    /// Start of the whole program on a log of orders until it is ready, with and without snapshots.
    Start,
    /// Memory that the write side keeps for each customer, order and idempotency key, in a table of
    /// its own.
    Memory,
    /// Queries and lag while orders arrive at half the highest rate of the node: alone, and beside
    /// rebuilds.
    Beside,
    /// Raw `SQLite` commits.
    FloorEmbedded,
    /// Raw Kafka transactions on one lane.
    FloorKafka,
    /// Raw `COPY` of the rows of the history, without and with indexes.
    FloorCopy,
    /// The table of docs/performance.md: most of the above on all logs that are at hand.
    All,
}

/// The kinds of log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogKind {
    /// `SQLite` in a temporary folder.
    Embedded,
    /// A topic of the Kafka at `--kafka`.
    Kafka,
    /// Memory only: shows the cost of everything but the log.
    Memory,
}

/// The ways to the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Over {
    /// Function calls, without HTTP and authentication.
    Process,
    /// HTTP to the whole program, over a loopback socket.
    Http,
}

/// Parses the name of a read model; the help lists all names.
fn read_model() -> impl TypedValueParser<Value = ReadModel> {
    PossibleValuesParser::new(ReadModel::ALL.map(ReadModel::as_str))
        .try_map(|name| name.parse::<ReadModel>())
}

/// The name of a value on the command line.
pub fn name(value: impl ValueEnum + Copy) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
