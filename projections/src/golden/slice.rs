//! The golden slice itself. New events are only ever appended, so that digests of its beginning
//! stay comparable.

use crate::facts::Fact;
use events::{
    Event, Fingerprint, Metadata, Offset, Partition, Position, StreamId, Timestamp, log::Record,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

const HISTORY: &str = include_str!("../../golden/history.jsonl");

#[derive(Deserialize)]
struct Told<'a> {
    stream: &'a str,
    version: u64,
    #[serde(rename = "type")]
    event_type: &'a str,
    schema: u16,
    time: Timestamp,
    event_id: Uuid,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// The number of events in the slice.
pub fn events() -> i32 {
    i32::try_from(HISTORY.lines().count()).unwrap_or(i32::MAX)
}

/// The first events of the slice. An event that this program cannot decode is left out, which
/// changes the rows and so the digest.
pub(super) fn facts(events: i32) -> Vec<Fact> {
    let events = usize::try_from(events).unwrap_or_default();
    HISTORY.lines().take(events).zip(0_i64..).filter_map(|(line, at)| fact(line, at)).collect()
}

fn fact(line: &str, at: i64) -> Option<Fact> {
    let told: Told<'_> = serde_json::from_str(line).ok()?;
    let stream: StreamId = told.stream.parse().ok()?;
    let body = told.body.get().to_owned();
    let event = Event::from_json(stream, told.event_type, told.schema, body.as_bytes()).ok()?;
    let metadata = Metadata {
        version: told.version,
        schema: told.schema,
        command_id: told.event_id,
        fingerprint: Fingerprint::default(),
        correlation_id: told.event_id,
        causation_id: told.event_id,
    };
    let record = Record {
        event_id: told.event_id,
        stream,
        event_type: told.event_type.to_owned().into(),
        time: told.time,
        metadata,
        traceparent: None,
        body: body.into(),
    };
    let position = Position { partition: Partition(0), offset: Offset(at) };
    Some(Fact { position, record, event })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_of_the_slice_is_read() {
        assert!(events() > 100);
        assert_eq!(facts(events()).len(), usize::try_from(events()).unwrap());
        assert_eq!(facts(7).len(), 7);
    }
}
