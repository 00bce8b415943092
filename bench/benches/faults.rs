//! `cargo bench -p bench --bench faults -- [OPTIONS]`; `--help` tells which.

use bench::faults::{Args, run};
use clap::Parser;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    // Cargo tells a benchmark apart from a test of the same file by this flag: a test run must not
    // start servers.
    if !std::env::args().any(|arg| arg == "--bench") {
        println!("faults: runs under `cargo bench` only");
        return ExitCode::SUCCESS;
    }
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("faults: {error:#}");
            ExitCode::FAILURE
        }
    }
}
