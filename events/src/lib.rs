//! Domain events and the event log that keeps them.
//!
//! | module | holds |
//! |---|---|
//! | [`order`], [`product`], [`customer`], [`email`], [`wishlist`] | the domain events, one enum per stream kind |
//! | [`recorded`], [`stream`], [`position`], [`money`] | the envelope of an event and its value types |
//! | [`codec`], [`upcast`] | encoding to JSON, and decoding of every schema version ever written |
//! | [`json_schema`] | JSON Schemas of the events, for programs that read the log without this crate |
//! | [`keys`], [`seal`] | encryption of personal data in the log, and the store of its keys outside the log |
//! | [`log`] | the log port, its adapters and the protocol that they share |
//! | [`environment`] | clock, ids, randomness and tasks; a simulation supplies its own |
//! | [`planted`] | known bugs that prove that the simulator finds them |
//!
//! Invariants:
//! - An event stays readable for ever. Golden files hold an example of every version ever written.
//! - Offsets are compared, never calculated with: every log adapter leaves gaps.
//! - A batch counts only if it is complete and no newer term was claimed before it.
//! - This crate holds no business rules. The crate `commands` decides what an order may do.

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
pub mod private;
pub mod product;
pub mod recorded;
pub mod seal;
pub mod stream;
pub mod upcast;
pub mod wishlist;

mod fnv;
mod full_text;
mod schema;

pub use codec::{DecodeError, Event};
pub use environment::{Environment, Timestamp};
pub use fnv::fnv1a;
pub use full_text::full_text;
pub use money::{Currency, Money};
pub use position::{LogPosition, Offset, Partition, Position};
pub use private::Private;
pub use recorded::{Fingerprint, Metadata, Recorded};
pub use seal::Sealed;
pub use stream::{StreamId, StreamKind};
