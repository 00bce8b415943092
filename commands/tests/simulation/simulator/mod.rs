//! The whole write side in a simulated world. Shards, opening and recovery, dispatchers, aggregates
//! and deduplication are the real ones. The log, the clock, the gateway, the clients and the
//! network between them are simulated. One seed is one run.

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
