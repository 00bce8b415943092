//! The program `orderlog`.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![allow(
    clippy::disallowed_methods,
    reason = "the program around the write side runs in the real world: its timers are tokio's"
)]

mod cli;

use mimalloc::MiMalloc;
use std::process::ExitCode;

/// Many small allocations on few threads, freed on others: the system's allocator costs half as
/// much again.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    match cli::parse() {
        Ok(cli) => cli.run(),
        Err(code) => code,
    }
}
