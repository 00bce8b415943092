//! The read side: what the log says, as tables in `PostgreSQL` that can be queried, thrown away and built again.
//!
//! | module | holds |
//! |---|---|
//! | [`ReadModels`] | the queries, and how fresh their answers are |
//! | [`orders`], [`products`], [`customers`], [`history`] | one read model each: events to rows, rows to answers |
//! | [`Projector`] | feeds every version of every read model from the log |
//! | [`rebuild`] | builds a version anew beside the serving one, switches, goes back, drops; tells how far all are |
//! | [`database`] | pools, migrations, the private cluster |
//!
//! Inside: `projection` (what a read model is), `version` (its tables in a schema of their own), `facts` and `source` (log to
//! decoded events), `streams` (one row a stream), `worker`, `session` and `transaction` (events to rows, one transaction at a
//! time), `checkpoint`, `lease`, `progress`.
//!
//! Invariants:
//! - rows and checkpoint move in one transaction, and only if the checkpoint is where the writer believes it is: whoever
//!   else writes, no event is applied twice and none is left out;
//! - each row belongs to one partition of the log, so no table depends on how partitions interleave;
//! - a row's version grows by one with each event of its stream, or its partition stops and says so;
//! - what cannot be applied stops its partition, visibly; nothing is skipped;
//! - queries read the views in schema `read` only, and the checkpoint before the rows;
//! - nothing here decides anything, and nothing here acts on the world.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod customers;
pub mod database;
pub mod history;
pub mod orders;
pub mod products;
pub mod rebuild;

mod backoff;
mod checkpoint;
mod copy;
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

pub use planted::Planted;
pub use progress::Progress;
pub use projection::ReadModel;
pub use projector::{Projector, ProjectorSettings, StartError};
pub use read_models::{Behind, Page, QueryError, ReadModels, StoppedModel};
pub use version::{PrepareError, prepare};
