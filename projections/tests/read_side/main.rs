//! The read side over real logs and a real `PostgreSQL`: one private cluster for all tests, a database for each.

#![allow(clippy::unwrap_used)]

mod faults;
mod fold;
mod rebuilds;
mod scenario;
mod shop;
mod throughput;
mod waiting;
