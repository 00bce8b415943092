//! The write side: it takes commands, decides them, and appends events to the log.
//!
//! | module | contents |
//! |---|---|
//! | [`product`], [`order`], [`customer`], [`email`], [`wishlist`], [`pricing`] | the pure part: what may happen, and what is owed afterwards |
//! | [`aggregate`] | what all aggregates have in common |
//! | [`request`] | a command on its way to a shard, and the answer to it |
//! | [`shard`] | the only writer of a partition: deduplicate, decide, append, answer |
//! | [`router`] | brings each command to the shard of its stream |
//! | [`dispatch`] | carries out the effects that aggregates owe |
//! | [`gateway`] | the payment gateway's port, the sandbox and Stripe |
//! | [`mail`] | the mailer's port, letters, SMTP and files |
//!
//! Invariants:
//! - No decision uses a read model. A shard knows its partition from the log alone.
//! - An aggregate uses no clock, no random numbers and no I/O. The command brings the time.
//! - Only a shard's writer appends, one batch at a time. The shard answers a command after
//!   everything that the answer depends on is durable.
//! - Every effect ends in an event and is owed until then, so a crash forgets nothing.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod aggregate;
pub mod customer;
pub mod dispatch;
pub mod email;
pub mod gateway;
pub mod mail;
pub mod order;
pub mod pricing;
pub mod product;
pub mod request;
pub mod router;
pub mod shard;
pub mod wishlist;

mod closed_orders;
mod rules;
mod write_side;

pub use dispatch::Outside;
pub use request::{Command, CommandError, Outcome, Refusal, Request, State, StateView};
pub use router::Router;
pub use rules::{OrderLimits, ShopRules};
pub use shard::{
    PartitionSnapshot, ShardState, ShardStatus, SnapshotError, SnapshotFiles, SnapshotStore,
};
pub use write_side::{WriteSettings, WriteSide};
