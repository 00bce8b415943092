//! Raw records to whole batches: the reading half of the log's discipline, the same for every adapter and every reader.
//!
//! - A batch counts only when all its records have been read in order; an incomplete one that is followed by another batch
//!   is void.
//! - A claim counts only if its term is higher than every term before it; a record of a lower term than the last claim's is
//!   a dead writer's and void.
//!
//! Both rules look only at what was read before, and a [`Cursor`] carries what they need, so a reader that starts in the
//! middle sees exactly the batches that one from the start sees.

use super::{EventLog, RawChunk, RawRecord, ReadError, Record, RecordReader};
use crate::{Offset, Partition, Position};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Where a reader stands in a partition: the next offset to look at, and the highest term seen before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Reading goes on with the first record at or after this.
    pub offset: Offset,
    /// The highest term before it; 0 before the first claim.
    pub term: u64,
}

impl Cursor {
    /// Before everything.
    pub const START: Self = Self { offset: Offset::START, term: 0 };
}

/// A record with its offset.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRecord {
    /// Its offset.
    pub offset: Offset,
    /// The record.
    pub record: Record,
}

/// A batch that counts.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredBatch {
    /// The partition it was read from.
    pub partition: Partition,
    /// Its name.
    pub id: Uuid,
    /// The term of its writer.
    pub term: u64,
    /// Its records, all of them.
    pub records: Vec<StoredRecord>,
}

impl StoredBatch {
    /// The records with their positions.
    pub fn positioned(&self) -> impl Iterator<Item = (Position, &Record)> {
        let partition = self.partition;
        self.records
            .iter()
            .map(move |stored| (Position { partition, offset: stored.offset }, &stored.record))
    }
}

/// What was read: whole batches, and where the reader stands behind them.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    /// The batches, in order.
    pub batches: Vec<StoredBatch>,
    /// Where a new reader would go on after these batches.
    pub cursor: Cursor,
    /// Whether this was all there is for now.
    pub at_end: bool,
}

/// Something a reader passed over, as `audit` reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Void {
    /// A batch that is not whole.
    Torn {
        /// Its name.
        batch_id: Uuid,
        /// Where it begins.
        offset: Offset,
    },
    /// A record of a writer whose term was over.
    Overtaken {
        /// The name of its batch.
        batch_id: Uuid,
        /// Where it stands.
        offset: Offset,
        /// Its term.
        term: u64,
    },
}

/// Puts batches together.
#[derive(Debug)]
pub struct Assembler {
    partition: Partition,
    term: u64,
    open: Option<StoredBatch>,
    void: Vec<Void>,
}

impl Assembler {
    /// For a reader that starts behind everything of terms up to `term`.
    pub fn new(partition: Partition, term: u64) -> Self {
        Self { partition, term, open: None, void: Vec::new() }
    }

    /// Takes the next raw record; gives the batch that it completes.
    pub fn push(&mut self, raw: RawRecord) -> Option<StoredBatch> {
        let RawRecord { offset, stamp, record } = raw;
        let claims = Claim::is_claim(&record);
        if stamp.term < self.term || (claims && stamp.term == self.term) {
            self.void.push(Void::Overtaken { batch_id: stamp.batch_id, offset, term: stamp.term });
            return None;
        }
        let index = stamp.index as usize;
        let continues = self
            .open
            .as_ref()
            .is_some_and(|open| open.id == stamp.batch_id && open.records.len() == index);
        if !continues {
            self.abandon();
            if index > 0 {
                self.void.push(Void::Torn { batch_id: stamp.batch_id, offset });
                return None;
            }
        }
        let (partition, id, term) = (self.partition, stamp.batch_id, stamp.term);
        let open = self.open.get_or_insert_with(|| StoredBatch {
            partition,
            id,
            term,
            // The length is from the log: believe it only as far as a batch can go.
            records: Vec::with_capacity((stamp.len as usize).min(super::MAX_BATCH_RECORDS)),
        });
        open.records.push(StoredRecord { offset, record });
        if index + 1 < stamp.len as usize {
            return None;
        }
        self.term = stamp.term;
        self.open.take()
    }

    fn abandon(&mut self) {
        if let Some(open) = self.open.take() {
            let offset = open.records[0].offset;
            self.void.push(Void::Torn { batch_id: open.id, offset });
        }
    }

    /// The cursor behind all whole batches, when the raw reader goes on at `next`.
    fn cursor(&self, next: Offset) -> Cursor {
        let offset = self.open.as_ref().map_or(next, |open| open.records[0].offset);
        Cursor { offset, term: self.term }
    }

    /// What was passed over since the last call.
    pub fn take_void(&mut self) -> Vec<Void> {
        std::mem::take(&mut self.void)
    }
}

use super::opening::Claim;

/// Reads a partition's batches in order: an adapter's reader and the rules above.
pub struct BatchReader {
    reader: Box<dyn RecordReader>,
    assembler: Assembler,
    cursor: Cursor,
}

impl BatchReader {
    /// Reads `partition` from `from` on.
    ///
    /// # Errors
    /// When the log cannot be read there.
    pub async fn open(
        log: &dyn EventLog,
        partition: Partition,
        from: Cursor,
    ) -> Result<Self, ReadError> {
        let reader = log.read(partition, from.offset).await?;
        Ok(Self { reader, assembler: Assembler::new(partition, from.term), cursor: from })
    }

    /// What comes next; waits for it at the end. May be dropped while waiting.
    ///
    /// # Errors
    /// As the adapter's reader.
    pub async fn next(&mut self) -> Result<Chunk, ReadError> {
        let RawChunk { records, next, at_end } = self.reader.next().await?;
        let mut batches = Vec::new();
        for raw in records {
            batches.extend(self.assembler.push(raw));
        }
        let next = next.unwrap_or(self.cursor.offset);
        self.cursor = self.assembler.cursor(next);
        Ok(Chunk { batches, cursor: self.cursor, at_end })
    }

    /// Where the reader stands.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// What was passed over since the last call.
    pub fn take_void(&mut self) -> Vec<Void> {
        self.assembler.take_void()
    }
}
