//! Run it with `cargo bench --bench load -- WORKLOAD [OPTIONS]`; `--help` lists workloads
//! and options.

use bench::Args;
use clap::Parser;
use mimalloc::MiMalloc;
use std::process::ExitCode;

/// The same allocator as the program's.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    // Cargo passes this flag to a benchmark, but not when it runs the file as a test. A test run
    // must not measure anything.
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
