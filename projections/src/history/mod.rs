//! History: one row an event, of every stream, as the log has it. Personal data in it is sealed.

mod apply;
mod query;

pub(crate) use apply::History;

use events::{Position, StreamId, Timestamp};
use serde_json::value::RawValue;
use uuid::Uuid;

/// An event of a stream.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The stream.
    pub stream: StreamId,
    /// The stream's version with this event, from 1.
    pub version: u64,
    /// The event's own id.
    pub event_id: Uuid,
    /// The wire name.
    pub event_type: String,
    /// The schema version of `data`.
    pub schema: u16,
    /// When the event was decided.
    pub occurred_at: Timestamp,
    /// The command that caused the event.
    pub command_id: Uuid,
    /// The first command of the process that the event belongs to.
    pub correlation_id: Uuid,
    /// What directly caused the command.
    pub causation_id: Uuid,
    /// The event's position in the log.
    pub position: Position,
    /// The event's JSON as written.
    pub data: Box<RawValue>,
}

/// A range of the events of a stream.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// Only events after this version; 0 for all.
    pub after: u64,
    /// Only events up to and including this version; `u64::MAX` for all.
    pub up_to: u64,
    /// The largest number of events to return.
    pub limit: u32,
}
