//! The program `orderlog`.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![allow(
    clippy::disallowed_methods,
    reason = "the program around the write side runs in the real world: its timers are tokio's"
)]

mod cli;

use mimalloc::MiMalloc;
use std::process::ExitCode;

/// The program makes many small allocations on few threads and frees them on others. The system's
/// allocator takes 1.5 times as long for that.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    // First of all: nothing that this program or a child of it writes is for other users.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    match cli::parse() {
        Ok(cli) => cli.run(),
        Err(code) => code,
    }
}
