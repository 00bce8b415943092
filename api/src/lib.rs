//! The HTTP interface of orderlog, and the program around it.
//!
//! | module | holds |
//! |---|---|
//! | [`router`] | every route on one screen, and the layers around them |
//! | [`app`] | what the handlers share |
//! | [`auth`], [`client`], [`rate_limit`] | who calls, from where, and how often |
//! | [`extract`], [`validate`], [`problem`], [`causality`], [`idempotency`], [`trace`] | the conventions of the interface, once each |
//! | [`command`], [`replay`] | from a request to a decided aggregate, whatever the client does meanwhile; old answers again |
//! | [`query`], `as_of` | what all reads share: freshness, pages, cursors; one thing as it was |
//! | [`orders`], [`products`], [`customers`], [`wishlist`], [`reports`], [`payments`], [`admin`], [`health`] | the endpoints |
//! | [`live`] | events as they happen, for those who listen |
//! | [`openapi`] | the document that describes them |
//! | [`postman`], [`asyncapi`], [`features`] | the same for Postman; the topic of events; what the shop can do |
//! | [`config`], [`startup`], [`shutdown`] | settings to a running program, and its end |
//! | [`server`], [`telemetry`], [`data_dir`], [`keys`] | what it runs on |
//! | [`audit`] | walks the log and says what is wrong with it |
//!
//! Invariants:
//! - a command that was accepted is carried through, also when its client has gone;
//! - nothing is decided here: what a command may do is the aggregate's word, and reads never feed a decision;
//! - personal data is sealed before it leaves this crate towards the log, and opened only to be answered;
//! - every error leaves as a problem document, and none tells what the database said.

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
pub mod validate;
pub mod wishlist;

#[cfg(test)]
mod checked_in;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

pub use app::{App, AppParts, AppSettings};
