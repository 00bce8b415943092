//! `cargo bench -p bench --bench load -- WORKLOAD [OPTIONS]`; `--help` tells which.

use bench::Args;
use clap::Parser;
use mimalloc::MiMalloc;
use std::process::ExitCode;

/// The program's.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    // Cargo tells a benchmark apart from a test of the same file by this flag: a test run must not
    // put load on anything.
    if !std::env::args().any(|arg| arg == "--bench") {
        println!("load: measures under `cargo bench` only");
        return ExitCode::SUCCESS;
    }
    match bench::run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::FAILURE
        }
    }
}
