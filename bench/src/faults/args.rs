//! The command line.

use clap::{Parser, ValueEnum, value_parser};
use std::{path::PathBuf, time::Duration};

/// Kills, pauses and cuts off the real program, Apache Kafka and PostgreSQL under load, and checks the whole history.
#[derive(Clone, Debug, Parser)]
#[command(name = "faults", bin_name = "cargo bench -p bench --bench faults --")]
pub struct Args {
    /// Where the log is kept.
    #[arg(long, value_enum, default_value_t = LogKind::Kafka)]
    pub log: LogKind,

    /// Faults come for so long [default: 120, or until all commands are sent].
    #[arg(long, value_parser = value_parser!(u64).range(1..=86_400))]
    pub seconds: Option<u64>,

    /// At least so many commands are sent while faults come.
    #[arg(long, default_value_t = 0)]
    pub commands: u64,

    /// Decides what is sent and which faults come [default: another one each time].
    #[arg(long)]
    pub seed: Option<u64>,

    /// Clients at once, each with one command under way.
    #[arg(long, default_value_t = 64, value_parser = value_parser!(u16).range(1..=4096))]
    pub clients: u16,

    /// Keys that are sent once more at the end, to see whether the answer is the same.
    #[arg(long, default_value_t = 5_000)]
    pub replays: usize,

    /// Only these kinds of faults, by the names that a run prints.
    #[arg(long, value_delimiter = ',', value_name = "FAULT,..")]
    pub only: Vec<String>,

    /// The program [default: `orderlog` as built beside this harness].
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,

    /// The broker's first port of three [default: free ones].
    #[arg(long, value_name = "PORT", value_parser = value_parser!(u16).range(1024..=65_000))]
    pub kafka_port: Option<u16>,

    /// Where data and logs lie; removed after a clean run [default: the system's temporary folder].
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// Keeps the folder after a clean run too.
    #[arg(long)]
    pub keep: bool,

    /// What cargo passes to benchmarks.
    #[arg(long, hide = true)]
    pub bench: bool,
}

impl Args {
    /// How long faults come at least.
    pub fn lasts(&self) -> Duration {
        let default = if self.commands > 0 { 0 } else { 120 };
        Duration::from_secs(self.seconds.unwrap_or(default))
    }
}

/// Where the log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogKind {
    /// A real broker of this run's own.
    Kafka,
    /// `SQLite` in the program's data directory.
    Embedded,
}
