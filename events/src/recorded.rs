//! The envelope of an event.

use crate::{Position, StreamId, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// A keyed hash of the canonical form of a command's request. It tells a repeated request from a
/// different one with the same idempotency key, without storing the request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Fingerprint(pub [u8; 16]);

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// The metadata of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The version that this event gives its stream; versions are contiguous from 1.
    pub version: u64,
    /// The schema version in which the event's JSON was written.
    pub schema: u16,
    /// The command that caused the event.
    pub command_id: Uuid,
    /// The fingerprint of the command's request; all zeros for commands that the program itself
    /// issued.
    pub fingerprint: Fingerprint,
    /// The first command of the process that this event belongs to.
    pub correlation_id: Uuid,
    /// The direct cause of the command: an event's id, or the command's own id if it came from a
    /// request.
    pub causation_id: Uuid,
}

/// An event with its position in the log and its metadata.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded<E> {
    /// The event's own id (`ce_id`).
    pub event_id: Uuid,
    /// Its stream (`ce_subject`).
    pub stream: StreamId,
    /// Its position in the log.
    pub position: Position,
    /// When it was decided (`ce_time`). Times never run backwards within a partition.
    pub time: Timestamp,
    /// Its versions and causes.
    pub metadata: Metadata,
    /// The event itself.
    pub event: E,
}
