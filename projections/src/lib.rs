//! The read side: what the log says, as tables in `PostgreSQL` that can be queried, thrown away and built again.
//!
//! | module | holds |
//! |---|---|
//! | [`ReadModels`] | the queries, and how fresh their answers are |
//! | [`orders`], [`products`], [`customers`], [`history`] | one read model each: events to rows, rows to answers |
//! | [`wishlists`], [`search`], [`sales`] | the same; they show products as they are when asked |
//! | [`Projector`] | feeds every version of every read model from the log |
//! | [`rebuild`] | builds a version anew beside the serving one, switches, goes back, drops; tells how far all are |
//! | [`parked`] | streams that cannot be applied: kept back, shown, tried again |
//! | [`past`] | the log folded again: read models as they were, one stream's rows, the audit of what serves |
//! | [`golden`] | what this program's code makes of a fixed history: whether it may feed what is there |
//! | [`database`] | pools, migrations, the private cluster |
//!
//! Inside: `projection` (what a read model is), `version` (its tables in a schema of their own), `facts` and `source` (log to
//! decoded events), `streams` (one row a stream), `copy` (rows in binary), `feeds` (what a projector has running), `worker`,
//! `session` and `transaction` (events to rows, one transaction at a time), `checkpoint`, `lease`, `progress`; under
//! [`rebuild`] how a new version is filled in bulk, indexed, compared and switched to, and `background`, where that is done.
//!
//! Invariants:
//! - rows and checkpoint move in one transaction, and only if the checkpoint is where the writer believes it is: whoever
//!   else writes, no event is applied twice and none is left out;
//! - each row belongs to one partition of the log, so no table depends on how partitions interleave;
//! - a row's version grows by one with each event of its stream, or the stream is parked;
//! - an event that cannot be applied parks its stream from there on, in order and visibly, and the rest goes on; where the
//!   log itself is damaged its partition stops; nothing is skipped;
//! - a version is fed only by code that makes the same of the golden slice as the code that began it;
//! - queries read the views in schema `read` only, and the checkpoint before the rows;
//! - nothing here decides anything, and nothing here acts on the world.

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
