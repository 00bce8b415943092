//! What a shard knows of its partition: a fold of the log, and nothing else.

use super::dedupe::{Applied, Dedupe, is_repeatable};
use crate::{
    aggregate::At,
    request::{CommandError, Snapshot, State},
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

/// A stream as the shard keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stream {
    /// The aggregate.
    pub state: State,
    /// The version of its last event.
    pub version: u64,
    /// Where its last event stands.
    pub last: Offset,
    /// The command that created it: a creation is known for ever.
    pub created_by: (Uuid, events::Fingerprint),
}

impl Stream {
    /// A stream before its first event.
    pub fn empty(stream: StreamId) -> Option<Self> {
        Some(Self {
            state: State::empty(stream.kind)?,
            version: 0,
            last: Offset::START,
            created_by: Default::default(),
        })
    }

    /// Takes in the next event.
    pub fn evolve(&mut self, event: &Event, metadata: &Metadata, time: Timestamp) {
        self.version = metadata.version;
        if metadata.version == 1 {
            self.created_by = (metadata.command_id, metadata.fingerprint);
        }
        self.state.evolve(event, At { version: metadata.version, time });
    }

    /// What a command did here, if it created the stream.
    pub fn created(&self, stream: StreamId, command_id: Uuid) -> Option<Applied> {
        let (by, fingerprint) = self.created_by;
        let created = self.version > 0 && by == command_id;
        created.then_some(Applied { stream, fingerprint, version: 1 })
    }

    /// The stream as told to others.
    pub fn snapshot(&self, partition: Partition, stream: StreamId) -> Snapshot {
        let position = (self.version > 0).then_some(Position { partition, offset: self.last });
        Snapshot { stream, version: self.version, position, state: self.state.clone() }
    }
}

/// History that cannot be taken in. The partition stays closed: skipping would be guessing.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// An event this program does not know.
    #[error("an event of partition {} at offset {} does not read", position.partition, position.offset)]
    Event {
        /// Where it stands.
        position: Position,
        /// Why.
        #[source]
        source: DecodeError,
    },
    /// A stream's versions are not contiguous: fencing was broken, or history is missing.
    #[error("{stream} goes from version {found} to {next}")]
    VersionGap {
        /// The stream.
        stream: StreamId,
        /// The version before.
        found: u64,
        /// The version read.
        next: u64,
    },
}

/// The fold of a partition up to a cursor.
#[derive(Clone, Debug)]
pub struct Memory {
    /// The partition.
    pub partition: Partition,
    /// Its streams.
    pub streams: FxHashMap<StreamId, Stream>,
    /// The commands applied lately.
    pub dedupe: Dedupe,
    /// The log time of the last record: it never runs backwards.
    pub time: Timestamp,
    /// Everything before it is taken in.
    pub cursor: Cursor,
    /// The last record taken in: where it stands, and its id.
    pub last: Option<(Offset, Uuid)>,
    /// Events taken in since the last snapshot.
    pub unsaved: usize,
}

impl Memory {
    /// Before the log's first record.
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

    /// Takes in a batch read from the log.
    pub fn fold(&mut self, batch: &StoredBatch) -> Result<(), HistoryError> {
        for (position, record) in batch.positioned() {
            self.time = self.time.max(record.time);
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
        // Writers' streams, the only ones without an aggregate, do not get here.
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
            self.note_command(id, &metadata, time);
        }
        Ok(())
    }

    /// Takes note of the command behind an event.
    pub fn note_command(&mut self, stream: StreamId, metadata: &Metadata, time: Timestamp) {
        // A creation is known by its stream.
        if metadata.version > 1 && is_repeatable(metadata) {
            let applied =
                Applied { stream, fingerprint: metadata.fingerprint, version: metadata.version };
            self.dedupe.note(time, metadata.command_id, applied);
        }
    }

    /// Whether this command was applied at the stream: lately, or as its creation.
    pub fn knows(&self, stream: StreamId, command_id: Uuid) -> bool {
        let created = self.streams.get(&stream).and_then(|it| it.created(stream, command_id));
        let applied = created.or_else(|| self.dedupe.find(command_id));
        applied.is_some_and(|applied| applied.stream == stream)
    }

    /// The stream as told to others; an empty one when it has no event.
    pub fn look(&self, stream: StreamId) -> Result<Snapshot, CommandError> {
        if let Some(found) = self.streams.get(&stream) {
            return Ok(found.snapshot(self.partition, stream));
        }
        let empty = Stream::empty(stream).ok_or(CommandError::Fault)?;
        Ok(empty.snapshot(self.partition, stream))
    }
}
