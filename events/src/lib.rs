//! What happened in the shop, and where it is kept.
//!
//! | module | holds |
//! |---|---|
//! | [`order`], [`product`], [`customer`], [`email`], [`wishlist`] | the domain events, one enum a stream kind |
//! | [`recorded`], [`stream`], [`position`], [`money`] | the envelope and the values in it |
//! | [`codec`], [`upcast`] | events to JSON and back, whatever schema version wrote them |
//! | [`json_schema`] | what that JSON looks like, for those who read the log with tools of their own |
//! | [`keys`], [`seal`] | personal data is sealed before it enters the log; its keys live elsewhere |
//! | [`log`] | the log port, its adapters and the discipline they share |
//! | [`environment`] | clock, ids and tasks, so that a simulation can supply its own |
//! | [`planted`] | known bugs, for a simulation to find |
//!
//! Invariants:
//! - an event, once written, is read for ever: golden files hold every version ever written;
//! - offsets are compared, never calculated with: every log leaves gaps;
//! - a batch counts only when it is complete and its term is not overtaken;
//! - nothing here knows what an order may do: that is decided in `commands`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod codec;
pub mod customer;
pub mod email;
pub mod environment;
pub mod json_schema;
pub mod keys;
pub mod log;
pub mod money;
pub mod order;
pub mod partitioner;
pub mod planted;
pub mod position;
pub mod product;
pub mod recorded;
pub mod seal;
pub mod stream;
pub mod upcast;
pub mod wishlist;

mod full_text;
mod schema;

pub use codec::{DecodeError, Event};
pub use environment::{Environment, Timestamp};
pub use full_text::full_text;
pub use money::{Currency, Money};
pub use position::{LogPosition, Offset, Partition, Position};
pub use recorded::{Fingerprint, Metadata, Recorded};
pub use seal::Sealed;
pub use stream::{StreamId, StreamKind};
