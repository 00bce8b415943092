//! The load harness. It measures the real program with closed-loop clients and, in the same run,
//! the floor: the speed of the raw storage with the same rows.
//!
//! | module | holds |
//! |---|---|
//! | [`args`] | the command line |
//! | [`measure`] | closed loops, their throughput and latencies |
//! | [`place`], [`observed`] | the log and the database of a run; a counter of what is appended |
//! | [`program`] | the whole program in a process of its own |
//! | [`shop`] | products, customers and orders, by function call or over HTTP to the whole program |
//! | [`workload`] | the workloads |
//! | [`floor`] | raw `SQLite` commits, raw Kafka transactions, raw `COPY` |
//! | [`report`] | the printed table |
//! | [`stranger`] | a third harness: a client that means harm and stays below every limit |
//! | [`faults`] | the other harness: it injects real faults and checks that nothing was lost |
//!
//! Absolute figures depend on the machine and its other load, so the ratio to the floor of the same
//! run says more. Everything is bounded, stays on this machine (or the given Kafka) and is removed
//! at the end.

#![allow(
    clippy::disallowed_methods,
    reason = "the harness measures real time, and its clients are its own tasks"
)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod args;
pub mod faults;
pub mod floor;
pub mod measure;
pub mod observed;
pub mod place;
pub mod program;
pub mod report;
pub mod shop;
pub mod stranger;
pub mod workload;

pub use args::Args;
pub use workload::run;
