//! What a version that is filled in bulk has gathered of a partition, from its checkpoint on.

use crate::{
    checkpoint::{Checkpoint, Last, Move},
    full_text,
    rebuild::gather::{Gather, Looks},
    version::Version,
};
use events::{
    DecodeError, Event, Offset, Partition, Position, StreamKind,
    log::{Cursor, Record, StoredBatch},
};
use std::sync::Arc;

/// What ends the filling of a version before the end of the partition.
pub(super) enum Halt {
    /// An event that does not read. What is before it is applied.
    Poison(String),
    /// A row that is refused. What was gathered with it is not applied.
    Row(String),
}

/// A record's event, where somebody looks at it.
pub(super) type Read = Option<Result<Event, DecodeError>>;

/// One version of those that are filled from one reading.
pub(super) struct Filling {
    pub version: Arc<Version>,
    pub gather: Box<dyn Gather>,
    /// Where its checkpoint is.
    pub from: Offset,
    /// Up to where it has gathered.
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

    /// All that comes before this was looked at.
    pub fn pass(&mut self, to: Cursor) {
        if to.offset > self.cursor.offset {
            self.cursor = to;
        }
    }

    /// What of this it has not gathered yet: a reading begins where the version begins that is furthest back.
    pub fn new_among<'a>(&self, batches: &'a [StoredBatch]) -> &'a [StoredBatch] {
        &batches[batches.partition_point(|batch| begin(batch) < self.cursor.offset)..]
    }

    /// The step of its checkpoint, if it has gathered anything.
    pub fn step(&self, partition: Partition) -> Option<Move> {
        let Self { version, from, cursor, last, events, .. } = self;
        let (share, expected) = ((version.id, partition), *from);
        let step = Move { share, expected, to: *cursor, last: *last, events: *events };
        (cursor.offset > *from).then_some(step)
    }

    /// All of it is in the database. Gives how many events that were.
    pub fn written(&mut self) -> u64 {
        self.gather.clear();
        (self.from, self.last) = (self.cursor.offset, None);
        std::mem::take(&mut self.events).unsigned_abs()
    }

    /// Takes a whole batch in, unless it has it; or nothing of it, if it has an event that this program does not know.
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
            match self.gather.looks(record.stream.kind) {
                Looks::Away => Ok(()),
                Looks::AtRecords => self.gather.take(at, record, None),
                Looks::AtEvents => self.gather.take(at, record, event),
            }
            .map_err(|error| Halt::Row(error.to_string()))?;
            self.events += 1;
            self.last = Some(Last::at(at, record));
        }
        self.cursor.term = batch.term;
        Ok(())
    }

    /// Whether it needs the event of a record: where only records are looked at, it must be known at least.
    fn needs(&self, record: &Record) -> bool {
        let kind = record.stream.kind;
        match self.gather.looks(kind) {
            _ if kind == StreamKind::Writer => false,
            Looks::Away => false,
            Looks::AtRecords => {
                Event::known_schema(kind, &record.event_type) != Some(record.metadata.schema)
            }
            Looks::AtEvents => true,
        }
    }
}

/// Where a batch begins.
fn begin(batch: &StoredBatch) -> Offset {
    batch.records.first().map_or(Offset::START, |stored| stored.offset)
}

/// Reads the events of a batch that somebody needs, once for all.
pub(super) fn read(fillings: &[Filling], batch: &StoredBatch, reads: &mut Vec<Read>) {
    reads.clear();
    reads.extend(batch.records.iter().map(|stored| {
        let Record { stream, event_type, metadata, body, .. } = &stored.record;
        let needed = fillings.iter().any(|filling| filling.needs(&stored.record));
        needed.then(|| Event::from_json(*stream, event_type, metadata.schema, body))
    }));
}
