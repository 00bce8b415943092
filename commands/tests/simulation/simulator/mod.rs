//! The simulator. It runs the real write side (shards, opening and recovery, dispatcher, aggregates
//! and deduplication) in a simulated world: log, clock, gateway, clients and network. A seed
//! decides everything in a run.

#![allow(dead_code, unused_imports, reason = "the tests and the command use a part of it each")]
#![allow(missing_docs, clippy::unwrap_used, reason = "an instrument of the tests")]

mod books;
mod calls;
mod disk;
mod gateway;
mod network;
mod panics;
mod plan;
mod post;
mod run;
mod search;
mod shop;
pub mod shrink;
mod world;

pub use plan::Plan;
pub use run::run;
pub use search::{Tally, search};
