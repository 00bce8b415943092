//! The read side on real logs and a real `PostgreSQL`, with one private cluster for all tests and a
//! database for each test.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "tests drive real time and count small things"
)]

mod bulk;
mod catalogue;
#[allow(dead_code, reason = "shared")]
mod doctored;
mod faults;
mod fold;
mod golden;
mod parking;
mod past;
mod rebuilds;
mod scenario;
mod shop;
mod undeclared;
mod upgrades;
mod verify;
mod views;
mod waiting;
