//! Folds the log into scratch tables.

use super::PastError;
use crate::{
    facts::{Decoded, Facts},
    parked::{Sieve, apply_carefully},
    projection::Projection,
    version::{self, VersionId},
};
use events::{
    Offset, Partition, Position, StreamId, Timestamp,
    log::{BatchReader, Cursor, EventLog, Record},
};
use sqlx::PgConnection;
use std::sync::Arc;

/// Smallest number of events applied at once, as long as there are more.
const PIECE: usize = 5_000;

/// Where the fold of a partition ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Before this offset.
    Before(Offset),
    /// With the event at this offset.
    With(Offset),
    /// With the last event of this time or earlier.
    Until(Timestamp),
}

impl End {
    pub fn includes(self, at: Offset, time: Timestamp) -> bool {
        match self {
            Self::Before(end) => at < end,
            Self::With(last) => at <= last,
            // Time never runs backwards within a partition.
            Self::Until(last) => time <= last,
        }
    }

    /// Whether no event at `next` or later can belong to the fold.
    fn is_before(self, next: Offset) -> bool {
        match self {
            Self::Before(end) => next >= end,
            Self::With(last) => next > last,
            Self::Until(_) => false,
        }
    }
}

/// How far a fold has read.
pub(super) struct FoldedTo {
    pub next: Offset,
    pub resume: Cursor,
}

/// The tables of a read model in a schema of their own.
pub(super) struct Scratch {
    pub schema: String,
    /// Events applied.
    pub events: u64,
    writer: Arc<dyn Projection>,
    sieve: Sieve,
}

impl Scratch {
    /// Makes empty tables.
    pub async fn create(
        connection: &mut PgConnection,
        id: VersionId,
        schema: String,
    ) -> Result<Self, sqlx::Error> {
        version::make_tables(connection, &schema, id.model.template()).await?;
        let writer = id.model.writer(&schema);
        Ok(Self { schema, events: 0, writer, sieve: Sieve::new(id) })
    }

    /// Applies the events of a partition for which `wanted` returns true, from the beginning of the
    /// partition to `end`.
    pub async fn fold(
        &mut self,
        connection: &mut PgConnection,
        log: &dyn EventLog,
        partition: Partition,
        end: End,
        wanted: impl Fn(Position, &Record) -> bool,
    ) -> Result<(), PastError> {
        let start = Cursor::START;
        self.fold_on(connection, log, partition, start, end, wanted).await.map(drop)
    }

    /// Like [`fold`](Self::fold), from `cursor` on. Returns where it has read to, and a cursor for
    /// reading on: that cursor is one chunk earlier, so that the next fold reads the last chunk
    /// again and must skip the events before `next`.
    pub async fn fold_on(
        &mut self,
        connection: &mut PgConnection,
        log: &dyn EventLog,
        partition: Partition,
        mut cursor: Cursor,
        end: End,
        wanted: impl Fn(Position, &Record) -> bool,
    ) -> Result<FoldedTo, PastError> {
        if end.is_before(cursor.offset) {
            return Ok(FoldedTo { next: cursor.offset, resume: cursor });
        }
        let belongs = |at: Position, record: &Record| {
            end.includes(at.offset, record.time) && wanted(at, record)
        };
        let mut reader = BatchReader::open(log, partition, cursor).await?;
        let mut facts = Vec::new();
        loop {
            let read = Decoded::of(reader.next().await?);
            let resume = std::mem::replace(&mut cursor, read.cursor);
            let beyond = read
                .facts
                .last()
                .is_some_and(|last| !end.includes(last.position.offset, last.record.time));
            facts.extend(read.facts.into_iter().filter(|it| belongs(it.position, &it.record)));
            for poison in read.undecodable {
                let takes = self.writer.takes(poison.record.stream.kind);
                if takes && belongs(poison.position, &poison.record) {
                    self.sieve.undecodable(&poison);
                }
            }
            let complete = read.at_end || beyond || end.is_before(cursor.offset);
            if complete || facts.len() >= PIECE {
                let writer = &*self.writer;
                apply_carefully(connection, writer, &Facts::from(&*facts), &mut self.sieve).await?;
                self.events += facts.len() as u64;
                facts.clear();
            }
            if complete {
                return Ok(FoldedTo { next: cursor.offset, resume });
            }
        }
    }

    /// The streams that could not be folded completely, and why.
    pub fn refused(&self) -> Vec<(StreamId, String)> {
        let reason =
            |kept_back: &crate::parked::KeptBack| kept_back.reason.clone().unwrap_or_default();
        self.sieve.kept_back().map(|kept_back| (kept_back.stream, reason(kept_back))).collect()
    }
}
