//! The envelope of an event.

use crate::{Position, StreamId, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// A keyed hash of the canonical request that a command came from: tells a repeated request from another one under the
/// same idempotency key, without keeping what it said.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Fingerprint(pub [u8; 16]);

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// What is known of an event besides what happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The version of the stream with this event: contiguous from 1.
    pub version: u64,
    /// The schema version of the event's JSON as written.
    pub schema: u16,
    /// The command that caused the event.
    pub command_id: Uuid,
    /// The request the command came from; all zero for commands of the program's own.
    pub fingerprint: Fingerprint,
    /// The first command of the process this event belongs to.
    pub correlation_id: Uuid,
    /// What directly caused the command: an event's id, or the command itself at the edge.
    pub causation_id: Uuid,
}

/// An event with its place in the log and all that is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded<E> {
    /// The event's own id (`ce_id`).
    pub event_id: Uuid,
    /// Its stream (`ce_subject`).
    pub stream: StreamId,
    /// Where it stands in the log.
    pub position: Position,
    /// When it was decided (`ce_time`); never runs backwards within a partition.
    pub time: Timestamp,
    /// Versions and causes.
    pub metadata: Metadata,
    /// What happened.
    pub event: E,
}
