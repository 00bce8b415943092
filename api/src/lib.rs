//! The HTTP interface of orderlog, and the program around it.
//!
//! | module | holds |
//! |---|---|
//! | [`router`] | every route and the layers around them |
//! | [`app`] | the state that all handlers share |
//! | [`auth`], [`client`], [`rate_limit`] | authentication, the client's address, rate limits |
//! | [`extract`], [`validate`], [`problem`] | reading and validating requests, problem documents |
//! | [`causality`], [`idempotency`], [`trace`] | the headers for versions, positions and waiting; for retries; for traces |
//! | [`command`], [`replay`] | from a request to a decided aggregate; earlier answers for retries |
//! | [`query`], `as_of` | what all reads share: freshness, pages, cursors; a resource as it was |
//! | [`orders`], [`products`], [`customers`], [`wishlist`], [`reports`] | the endpoints of the shop |
//! | [`payments`], [`admin`], [`health`] | the endpoints for the payment gateway, administrators and operators |
//! | [`live`] | streams new events to listeners |
//! | [`openapi`], [`postman`], [`asyncapi`], [`features`] | generated documents: the interface twice, the topic of events, the features |
//! | [`pages`] | what a browser shows: HTML, or JSON and Markdown for programs |
//! | [`config`], [`startup`], [`shutdown`] | settings, start and stop of the program |
//! | [`server`], [`telemetry`], [`data_dir`], [`keys`] | the HTTP server, logs and metrics, the data directory, the keys of personal data |
//! | [`audit`] | walks the log and reports faults |
//!
//! Invariants:
//! - an accepted command is carried out to its end, even if its client disconnects;
//! - nothing is decided here: only aggregates decide, and never from a read model;
//! - personal data is sealed before it leaves this crate for the log, and decrypted only for an answer;
//! - every error is answered as a problem document, and none repeats the database's message.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![allow(
    clippy::disallowed_methods,
    reason = "the program around the write side runs in the real world: its tasks and timers are tokio's"
)]

pub mod admin;
pub mod app;
mod as_of;
pub mod asyncapi;
pub mod audit;
pub mod auth;
pub mod causality;
pub mod client;
pub mod command;
pub mod config;
pub mod customers;
pub mod data_dir;
pub mod extract;
pub mod features;
pub mod health;
pub mod idempotency;
pub mod keys;
pub mod live;
pub mod openapi;
pub mod orders;
pub mod pages;
pub mod payments;
pub mod postman;
pub mod problem;
pub mod products;
pub mod query;
pub mod rate_limit;
pub mod replay;
pub mod reports;
pub mod router;
pub mod server;
pub mod shutdown;
pub mod startup;
pub mod telemetry;
pub mod trace;
mod under_way;
pub mod validate;
pub mod wishlist;

#[cfg(test)]
mod checked_in;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

pub use app::{App, AppParts, AppSettings};
