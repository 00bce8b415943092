//! What a shard knows of its partition: a fold of the log and nothing else.

use super::dedupe::{Applied, Dedupe, is_repeatable};
use crate::{
    aggregate::At,
    request::{CommandError, State, StateView},
};
use events::{
    DecodeError, Event, Metadata, Offset, Partition, Position, Recorded, StreamId, StreamKind,
    Timestamp,
    log::{Cursor, StoredBatch},
    planted::Bug,
};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A stream as the shard keeps it in memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stream {
    /// The aggregate.
    pub state: State,
    /// The version of its last event.
    pub version: u64,
    /// The offset of its last event.
    pub last: Offset,
    /// The command that created the stream, with its fingerprint; remembered for ever.
    pub created_by_command: (Uuid, events::Fingerprint),
}

impl Stream {
    /// A stream without events; `None` for a writer's stream.
    pub fn empty(stream: StreamId) -> Option<Self> {
        Some(Self {
            state: State::empty(stream.kind)?,
            version: 0,
            last: Offset::START,
            created_by_command: Default::default(),
        })
    }

    /// Applies the next event.
    pub fn evolve(&mut self, event: &Event, metadata: &Metadata, time: Timestamp) {
        self.version = metadata.version;
        if metadata.version == 1 {
            self.created_by_command = (metadata.command_id, metadata.fingerprint);
        }
        self.state.evolve(event, At { version: metadata.version, time });
    }

    /// What the command did here, if it is the one that created the stream.
    pub fn created(&self, stream: StreamId, command_id: Uuid) -> Option<Applied> {
        let (by, fingerprint) = self.created_by_command;
        let created = self.version > 0 && by == command_id;
        created.then_some(Applied { stream, fingerprint, version: 1 })
    }

    /// The stream's state as told to callers.
    pub fn view(&self, partition: Partition, stream: StreamId) -> StateView {
        let position = (self.version > 0).then_some(Position { partition, offset: self.last });
        StateView { stream, version: self.version, position, state: self.state.clone() }
    }
}

/// The log contains something that cannot be folded. The partition stays closed, because skipping
/// it would be a guess.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// An event that this program cannot decode.
    #[error(
        "the event at offset {} of partition {} cannot be decoded",
        position.offset, position.partition
    )]
    Event {
        /// Its position.
        position: Position,
        /// Why it cannot be decoded.
        #[source]
        source: DecodeError,
    },
    /// A stream's versions have a gap: fencing has failed, or history is missing.
    #[error("the history of {stream} has a gap between versions {found} and {next}")]
    VersionGap {
        /// The stream.
        stream: StreamId,
        /// The last version before the gap.
        found: u64,
        /// The version after it.
        next: u64,
    },
}

/// The fold of a partition up to a position.
#[derive(Clone, Debug)]
pub struct Memory {
    /// The partition.
    pub partition: Partition,
    /// Its streams.
    pub streams: FxHashMap<StreamId, Stream>,
    /// The commands applied recently.
    pub dedupe: Dedupe,
    /// The log time of the last record; it never decreases.
    pub time: Timestamp,
    /// Everything before this place in the log has been folded.
    pub cursor: Cursor,
    /// The offset and id of the last record that has been folded.
    pub last: Option<(Offset, Uuid)>,
    /// The number of events folded since the last snapshot.
    pub unsaved: usize,
}

impl Memory {
    /// The memory of an empty log.
    pub fn new(partition: Partition) -> Self {
        Self {
            partition,
            streams: FxHashMap::default(),
            dedupe: Dedupe::default(),
            time: Timestamp::UNIX_EPOCH,
            cursor: Cursor::START,
            last: None,
            unsaved: 0,
        }
    }

    /// Folds a batch that was read from the log.
    pub fn fold(&mut self, batch: &StoredBatch) -> Result<(), HistoryError> {
        for (position, record) in batch.positioned() {
            self.pass(record.time);
            self.last = Some((position.offset, record.event_id));
            if record.stream.kind == StreamKind::Writer {
                continue;
            }
            let recorded = record
                .decode(position)
                .map_err(|source| HistoryError::Event { position, source })?;
            self.fold_event(&recorded)?;
            self.unsaved += 1;
        }
        Ok(())
    }

    fn fold_event(&mut self, recorded: &Recorded<Event>) -> Result<(), HistoryError> {
        let &Recorded { stream: id, position, time, metadata, ref event, .. } = recorded;
        // Only writers' streams have no aggregate, and they do not reach this point.
        let Some(empty) = Stream::empty(id) else { return Ok(()) };
        let stream = self.streams.entry(id).or_insert(empty);
        if metadata.version != stream.version + 1 {
            return Err(HistoryError::VersionGap {
                stream: id,
                found: stream.version,
                next: metadata.version,
            });
        }
        stream.evolve(event, &metadata, time);
        stream.last = position.offset;
        stream.state.compact();
        if !Bug::DedupeForgotten.is_planted() {
            self.note_command(id, &metadata);
        }
        Ok(())
    }

    /// Moves log time on to that of the next record.
    pub fn pass(&mut self, time: Timestamp) {
        self.dedupe.pass(time - self.time);
        self.time = self.time.max(time);
    }

    /// Remembers the command that an event comes from.
    pub fn note_command(&mut self, stream: StreamId, metadata: &Metadata) {
        // The stream itself remembers the command that created it.
        if metadata.version > 1 && is_repeatable(metadata) {
            let applied =
                Applied { stream, fingerprint: metadata.fingerprint, version: metadata.version };
            self.dedupe.note(metadata.command_id, applied);
        }
    }

    /// Whether this command created the stream, or is remembered as applied there.
    pub fn was_applied(&self, stream: StreamId, command_id: Uuid) -> bool {
        let created = self.streams.get(&stream).and_then(|it| it.created(stream, command_id));
        let applied = created.or_else(|| self.dedupe.find(command_id));
        applied.is_some_and(|applied| applied.stream == stream)
    }

    /// The stream's state as told to callers; an empty state if the stream has no events.
    pub fn view(&self, stream: StreamId) -> Result<StateView, CommandError> {
        if let Some(found) = self.streams.get(&stream) {
            return Ok(found.view(self.partition, stream));
        }
        let empty = Stream::empty(stream).ok_or(CommandError::Fault)?;
        Ok(empty.view(self.partition, stream))
    }
}
