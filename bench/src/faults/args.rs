//! The command line of the fault harness.

use clap::{Parser, ValueEnum, value_parser};
use std::{path::PathBuf, time::Duration};

/// Kills, pauses and disconnects the real program, Apache Kafka and PostgreSQL under load, then
/// checks the whole history.
#[derive(Clone, Debug, Parser)]
#[command(name = "faults", bin_name = "cargo bench --bench faults --")]
pub struct Args {
    /// Which log to use.
    #[arg(long, value_enum, default_value_t = LogKind::Kafka)]
    pub log: LogKind,

    /// How long to inject faults, in seconds [default: 120, or until all commands are sent].
    #[arg(long, value_parser = value_parser!(u64).range(1..=86_400))]
    pub seconds: Option<u64>,

    /// The least number of commands to send while faults are injected.
    #[arg(long, default_value_t = 0)]
    pub commands: u64,

    /// Seed of the commands and the faults [default: a random one].
    #[arg(long)]
    pub seed: Option<u64>,

    /// Number of concurrent clients, each with one command in flight.
    #[arg(long, default_value_t = 64, value_parser = value_parser!(u16).range(1..=4096))]
    pub clients: u16,

    /// Number of idempotency keys to send again at the end, to check that the answer is the same.
    #[arg(long, default_value_t = 5_000)]
    pub replays: usize,

    /// Inject only these kinds of faults; a run prints their names.
    #[arg(long, value_delimiter = ',', value_name = "FAULT,..")]
    pub only: Vec<String>,

    /// The program to test [default: `orderlog` in the target folder of this harness].
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,

    /// The first of the broker's three ports [default: free ones].
    #[arg(long, value_name = "PORT", value_parser = value_parser!(u16).range(1024..=65_000))]
    pub kafka_port: Option<u16>,

    /// Folder for data and logs; removed after a run without violations [default: the system's
    /// temporary folder].
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// Keep the folder after a run without violations too.
    #[arg(long)]
    pub keep: bool,

    /// The flag that Cargo passes to benchmarks.
    #[arg(long, hide = true)]
    pub bench: bool,
}

impl Args {
    /// The least time to inject faults.
    pub fn lasts(&self) -> Duration {
        let default = if self.commands > 0 { 0 } else { 120 };
        Duration::from_secs(self.seconds.unwrap_or(default))
    }
}

/// The kinds of log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogKind {
    /// A real broker, started for this run.
    Kafka,
    /// `SQLite` in the program's data directory.
    Embedded,
}
