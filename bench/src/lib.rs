//! The load harness: closed-loop clients against the real program, and in the same run the floor:
//! what the storage below it does with the same rows and nothing else.
//!
//! | module | holds |
//! |---|---|
//! | [`args`] | the command line |
//! | [`measure`] | closed loops, their throughput and latencies |
//! | [`place`], [`observed`] | where the log of a run is kept; what is appended to it |
//! | [`shop`] | products, customers, orders: by function call, or over HTTP to the whole program |
//! | [`workload`] | what is measured |
//! | [`floor`] | raw `SQLite` commits, raw Kafka transactions, raw `COPY` |
//! | [`report`] | the table |
//! | [`faults`] | the other harness: real faults, and whether anything was lost |
//!
//! Absolute figures depend on the machine and on what else it does; the ratio to the floor of the
//! same run says more. Everything is bounded, stays on this machine (or the Kafka that was named)
//! and is removed at the end.

#![allow(
    clippy::disallowed_methods,
    reason = "a harness measures real time, and its clients are tasks of its own"
)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod args;
pub mod faults;
pub mod floor;
pub mod measure;
pub mod observed;
pub mod place;
pub mod report;
pub mod shop;
pub mod workload;

pub use args::Args;
pub use workload::run;
