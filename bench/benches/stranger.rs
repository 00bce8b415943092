//! Run it with `cargo bench --bench stranger -- [OPTIONS]`; `--help` lists the options.

use bench::stranger::{Args, run};
use clap::Parser;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    // Cargo passes this flag to a benchmark, but not when it runs the file as a test. A test run
    // must not start servers.
    if !std::env::args().any(|arg| arg == "--bench") {
        println!("stranger: runs under `cargo bench` only");
        return ExitCode::SUCCESS;
    }
    match run(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stranger: {error:#}");
            ExitCode::FAILURE
        }
    }
}
