//! The read side: the events of the log as `PostgreSQL` tables that can be queried, dropped and
//! rebuilt.
//!
//! | module | contents |
//! |---|---|
//! | [`ReadModels`] | the queries, and how current their answers are |
//! | [`orders`], [`products`], [`customers`], [`history`] | one read model each: events to rows, rows to answers |
//! | [`wishlists`], [`search`], [`sales`] | the same; they read the products when they are queried |
//! | [`Projector`] | feeds every version of every read model from the log |
//! | [`rebuild`] | rebuilds a read model beside the serving version, switches, rolls back, drops, reports |
//! | [`parked`] | streams that cannot be applied: kept back, listed, retried |
//! | [`past`] | folds the log again: past read models, the rows of one stream, the audit |
//! | [`golden`] | what this build makes of a fixed history, which decides what it may feed |
//! | [`database`] | pools, migrations, the private cluster |
//!
//! Private modules:
//! - `projection` (what a read model is) and `version` (its tables, in a schema of their own);
//! - `source` and `facts` (the log as decoded events), `streams` (read models with one row a
//!   stream), `copy` (rows in binary form), `digest` (hashes of rows);
//! - `feeds` (the tasks of a projector), `worker`, `session` and `transaction` (from events to
//!   rows, one transaction at a time), `checkpoint`, `lease`, `progress`, and `build` (whose code);
//! - `background` (threads and sessions with a lower priority) for the parts of [`rebuild`] that
//!   fill a new version in bulk, make its indexes and compare it.
//!
//! Invariants:
//! - Rows and checkpoint move in one transaction, and only if the checkpoint is where the writer
//!   expects it. So no event is applied twice or left out, even with two writers.
//! - Each row belongs to one partition of the log. No table depends on how partitions interleave.
//! - The version of an order, product or customer row grows by one with each event of its stream;
//!   otherwise the stream is parked.
//! - An event that cannot be applied parks its stream: later events of the stream are kept back in
//!   order, the stream is listed, and other streams go on. If the log itself is damaged, the
//!   partition stops. Nothing is skipped.
//! - A build feeds a version only if it makes the same rows of the golden slice as the build that
//!   began the version.
//! - Queries read only the views in schema `read`, and read the checkpoint before the rows.
//! - This crate decides nothing and has no effects outside the database.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod customers;
pub mod database;
pub mod golden;
pub mod history;
pub mod orders;
pub mod parked;
pub mod past;
pub mod products;
pub mod rebuild;
pub mod sales;
pub mod search;
pub mod wishlists;

mod background;
mod backoff;
mod build;
mod checkpoint;
mod copy;
mod digest;
mod facts;
mod feeds;
mod lease;
mod planted;
mod progress;
mod projection;
mod projector;
mod read_models;
mod session;
mod source;
mod streams;
mod transaction;
mod version;
mod worker;

#[cfg(test)]
mod rules;

pub use planted::Planted;
pub use progress::Progress;
pub use projection::ReadModel;
pub use projector::{Projector, ProjectorSettings, StartError};
pub use read_models::{Behind, Page, QueryError, ReadModels, StaleModel, StoppedModel};
pub use version::{PrepareError, prepare};

use events::full_text;
