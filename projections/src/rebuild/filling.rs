//! The state of filling one version with one partition in bulk: what it has gathered since its
//! checkpoint.

use crate::{
    checkpoint::{Checkpoint, Last, Move},
    full_text,
    rebuild::gather::{Gather, Needs},
    version::Version,
};
use events::{
    DecodeError, Event, Offset, Partition, Position, StreamKind,
    log::{Cursor, Record, StoredBatch},
};
use std::sync::Arc;

/// Why a fill ends before the end of the partition.
pub(super) enum Halt {
    /// An event cannot be decoded. Everything before it is gathered.
    Poison(String),
    /// A row is refused. What was gathered with it is not applied.
    Row(String),
}

/// The decoded event of a record; `None` if no fill needs it decoded.
pub(super) type Read = Option<Result<Event, DecodeError>>;

/// One of the versions that share a reader.
pub(super) struct Filling {
    pub version: Arc<Version>,
    pub gather: Box<dyn Gather>,
    /// The offset of the version's checkpoint.
    pub from: Offset,
    /// How far the version has gathered.
    cursor: Cursor,
    last: Option<Last>,
    events: i64,
}

impl Filling {
    pub fn new(version: Arc<Version>, checkpoint: &Checkpoint) -> Self {
        let (gather, cursor) = (version.writer.gather(), checkpoint.cursor);
        Self { version, gather, from: cursor.offset, cursor, last: None, events: 0 }
    }

    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Moves the cursor to `to`: everything before it has been gathered.
    pub fn pass(&mut self, to: Cursor) {
        if to.offset > self.cursor.offset {
            self.cursor = to;
        }
    }

    /// The batches that this version has not gathered yet. A shared reader begins at the version
    /// that is furthest behind, so the others skip what they already have.
    pub fn new_among<'a>(&self, batches: &'a [StoredBatch]) -> &'a [StoredBatch] {
        &batches[batches.partition_point(|batch| begin(batch) < self.cursor.offset)..]
    }

    /// The move of the checkpoint, if anything was gathered.
    pub fn step(&self, partition: Partition) -> Option<Move> {
        let Self { version, from, cursor, last, events, .. } = self;
        let (share, expected) = ((version.id, partition), *from);
        let step = Move { share, expected, to: *cursor, last: *last, events: *events };
        (cursor.offset > *from).then_some(step)
    }

    /// Notes that everything gathered is committed. Returns how many events that were.
    pub fn written(&mut self) -> u64 {
        self.gather.clear();
        (self.from, self.last) = (self.cursor.offset, None);
        std::mem::take(&mut self.events).unsigned_abs()
    }

    /// Gathers a batch, unless it was gathered before. If the batch contains an event that this
    /// program cannot decode, none of the batch is gathered.
    pub fn take(
        &mut self,
        partition: Partition,
        batch: &StoredBatch,
        reads: &[Read],
    ) -> Result<(), Halt> {
        if begin(batch) < self.cursor.offset {
            return Ok(());
        }
        let records = || batch.records.iter().zip(reads);
        self.cursor.offset = begin(batch);
        for (stored, read) in records() {
            if let (true, Some(Err(error))) = (self.needs(&stored.record), read) {
                return Err(Halt::Poison(full_text(error)));
            }
        }
        for (stored, read) in records() {
            let record = &stored.record;
            if record.stream.kind == StreamKind::Writer {
                continue;
            }
            let at = Position { partition, offset: stored.offset };
            let event = read.as_ref().and_then(|read| read.as_ref().ok());
            match self.gather.needs(record.stream.kind) {
                Needs::Nothing => Ok(()),
                Needs::Record => self.gather.take(at, record, None),
                Needs::Event => self.gather.take(at, record, event),
            }
            .map_err(|error| Halt::Row(error.to_string()))?;
            self.events += 1;
            self.last = Some(Last::at(at, record));
        }
        self.cursor.term = batch.term;
        Ok(())
    }

    /// Whether the record must be decoded. Where a read model needs only the record, it need not
    /// be, as long as its type and schema version are known.
    fn needs(&self, record: &Record) -> bool {
        let kind = record.stream.kind;
        match self.gather.needs(kind) {
            _ if kind == StreamKind::Writer => false,
            Needs::Nothing => false,
            Needs::Record => {
                Event::known_schema(kind, &record.event_type) != Some(record.metadata.schema)
            }
            Needs::Event => true,
        }
    }
}

/// The offset of the first record of a batch.
fn begin(batch: &StoredBatch) -> Offset {
    batch.records.first().map_or(Offset::START, |stored| stored.offset)
}

/// Decodes, once for all fills, the events of a batch that at least one fill needs.
pub(super) fn read(fillings: &[Filling], batch: &StoredBatch, reads: &mut Vec<Read>) {
    reads.clear();
    reads.extend(batch.records.iter().map(|stored| {
        let Record { stream, event_type, metadata, body, .. } = &stored.record;
        let needed = fillings.iter().any(|filling| filling.needs(&stored.record));
        needed.then(|| Event::from_json(*stream, event_type, metadata.schema, body))
    }));
}
