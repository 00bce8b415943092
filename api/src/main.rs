//! The program `orderlog`.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![allow(
    clippy::disallowed_methods,
    reason = "the program around the write side runs in the real world: its timers are tokio's"
)]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::parse() {
        Ok(cli) => cli.run(),
        Err(code) => code,
    }
}
