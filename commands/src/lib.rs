//! The write side: commands in, decisions, events out.
//!
//! | module | holds |
//! |---|---|
//! | [`product`], [`order`], [`customer`], [`email`], [`wishlist`], [`pricing`] | the pure part: what may happen, and what is owed then |
//! | [`request`] | a command on its way to a shard, and the answer |
//! | [`shard`] | the one writer of a partition: dedupe, decide, append, answer |
//! | [`router`] | commands to shards |
//! | [`dispatch`] | what aggregates owe the world, carried out |
//! | [`gateway`] | the payment gateway's port, the sandbox and Stripe |
//! | [`mail`] | the mailer's port, letters, SMTP and files |
//!
//! Invariants:
//! - nothing here decides from a read model: a shard knows its partition from the log alone;
//! - no clock, no random number, no I/O in an aggregate; time comes in with the command;
//! - only a shard's writer appends, one batch at a time, and nothing is answered before what it rests on is durable;
//! - every effect ends in an event, and is owed until then: a crash forgets nothing.

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

mod write_side;

pub use dispatch::Outside;
pub use request::{Command, CommandError, Outcome, Refusal, Request, Snapshot, State};
pub use router::Router;
pub use shard::{
    PartitionSnapshot, ShardState, ShardStatus, SnapshotError, SnapshotFiles, SnapshotStore,
};
pub use write_side::{WriteSettings, WriteSide};
