//! The command line of the stranger.

use super::act::Act;
use clap::{Parser, value_parser};
use std::path::PathBuf;

/// Measures what a client that means harm, and stays below every limit, costs the others.
///
/// The program runs in a process of its own, with the embedded log and its default limits. The
/// stranger calls from 127.0.0.2, everybody else from 127.0.0.1, so that the program counts them
/// apart.
#[derive(Clone, Debug, Parser)]
#[command(name = "stranger", bin_name = "cargo bench --bench stranger --")]
pub struct Args {
    /// Duration of the measurement, in seconds: a quarter for each act of the stranger alone, the
    /// rest for phases without the stranger and with all acts at once, in turn.
    #[arg(long, default_value_t = 600, value_parser = value_parser!(u64).range(20..=86_400))]
    pub seconds: u64,

    /// Orders that the good clients read, a second.
    #[arg(long, default_value_t = 40, value_parser = value_parser!(u32).range(1..=500))]
    pub reads: u32,

    /// Orders that the good clients place, a second.
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u32).range(1..=200))]
    pub orders: u32,

    /// Products in the catalogue.
    #[arg(long, default_value_t = 500, value_parser = value_parser!(u32).range(10..=100_000))]
    pub products: u32,

    /// Do only these acts.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "ACT,..")]
    pub only: Vec<Act>,

    /// The program to measure [default: `orderlog` in the target folder of this harness].
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,

    /// The flag that Cargo passes to benchmarks.
    #[arg(long, hide = true)]
    pub bench: bool,
}
