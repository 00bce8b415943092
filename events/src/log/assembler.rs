//! Assembles raw records into whole batches. This is the reading half of the log's protocol; it is
//! the same for every adapter and every reader.
//!
//! - A batch counts only if all its records were read in order. An incomplete batch that another
//!   batch follows is void.
//! - A claim counts only if its term is higher than every term before it. A record of a lower term
//!   than the last claim's comes from a former writer and is void.
//!
//! Both rules depend only on earlier records, and a [`Cursor`] holds all that they need. So a
//! reader that starts in the middle sees exactly the batches that a reader from the start sees.

use super::{EventLog, RawChunk, RawRecord, ReadError, Record, RecordReader};
use crate::{Offset, Partition, Position};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A reader's place in a partition: the next offset to read, and the highest term before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Reading continues with the first record at or after this offset.
    pub offset: Offset,
    /// The highest term before it; 0 before the first claim.
    pub term: u64,
}

impl Cursor {
    /// The start of a partition.
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

/// A complete batch that is not void.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredBatch {
    /// The partition it was read from.
    pub partition: Partition,
    /// Its id.
    pub id: Uuid,
    /// The term of its writer.
    pub term: u64,
    /// All its records.
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

/// The result of one read: whole batches, and the reader's place after them.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    /// The batches, in order.
    pub batches: Vec<StoredBatch>,
    /// The place from which a new reader continues after these batches.
    pub cursor: Cursor,
    /// Whether the reader has reached the end of the partition.
    pub at_end: bool,
}

/// Records that do not count and that a reader skipped; `audit` reports them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Void {
    /// An incomplete batch.
    Torn {
        /// The id of the batch.
        batch_id: Uuid,
        /// The offset of its first record that was found.
        offset: Offset,
    },
    /// A record of a writer whose term had ended.
    Overtaken {
        /// The id of its batch.
        batch_id: Uuid,
        /// Its offset.
        offset: Offset,
        /// Its term.
        term: u64,
    },
    /// A record of another program. It cannot have been acknowledged to anybody by this one.
    Foreign {
        /// Its offset.
        offset: Offset,
    },
}

/// Assembles batches from records.
#[derive(Debug)]
pub struct Assembler {
    partition: Partition,
    term: u64,
    open: Option<StoredBatch>,
    void: Vec<Void>,
}

impl Assembler {
    /// Makes an assembler for a reader that starts where `term` is the highest term so far.
    pub fn new(partition: Partition, term: u64) -> Self {
        Self { partition, term, open: None, void: Vec::new() }
    }

    /// Takes the next raw record. Returns the batch that it completes.
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
            // The length comes from the log and may be damaged: allocate no more than the largest
            // batch needs.
            records: Vec::with_capacity((stamp.len as usize).min(super::MAX_BATCH_RECORDS)),
        });
        open.records.push(StoredRecord { offset, record });
        if index + 1 < stamp.len as usize {
            return None;
        }
        self.term = stamp.term;
        self.open.take()
    }

    /// Passes over a record of another program, also in the middle of a batch.
    pub fn pass_over(&mut self, offset: Offset) {
        self.void.push(Void::Foreign { offset });
    }

    fn abandon(&mut self) {
        if let Some(open) = self.open.take() {
            let offset = open.records[0].offset;
            self.void.push(Void::Torn { batch_id: open.id, offset });
        }
    }

    /// The cursor after all whole batches, if the raw reader continues at `next`.
    fn cursor(&self, next: Offset) -> Cursor {
        let offset = self.open.as_ref().map_or(next, |open| open.records[0].offset);
        Cursor { offset, term: self.term }
    }

    /// The records skipped as void since the last call.
    pub fn take_void(&mut self) -> Vec<Void> {
        std::mem::take(&mut self.void)
    }
}

use super::opening::Claim;

/// Reads a partition's batches in order: applies the rules of this module to the records of an
/// adapter's reader.
pub struct BatchReader {
    reader: Box<dyn RecordReader>,
    assembler: Assembler,
    cursor: Cursor,
}

impl BatchReader {
    /// Starts reading `partition` at `from`.
    ///
    /// # Errors
    /// When the log cannot be read from there.
    pub async fn open(
        log: &dyn EventLog,
        partition: Partition,
        from: Cursor,
    ) -> Result<Self, ReadError> {
        let reader = log.read(partition, from.offset).await?;
        Ok(Self { reader, assembler: Assembler::new(partition, from.term), cursor: from })
    }

    /// Returns the next chunk; at the end of the partition it waits for one. The future may be
    /// dropped while it waits.
    ///
    /// # Errors
    /// The errors of the adapter's reader.
    pub async fn next(&mut self) -> Result<Chunk, ReadError> {
        let RawChunk { records, foreign, next, at_end } = self.reader.next().await?;
        for offset in foreign {
            self.assembler.pass_over(offset);
        }
        let mut batches = Vec::new();
        for raw in records {
            batches.extend(self.assembler.push(raw));
        }
        let next = next.unwrap_or(self.cursor.offset);
        self.cursor = self.assembler.cursor(next);
        Ok(Chunk { batches, cursor: self.cursor, at_end })
    }

    /// The reader's current place.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// The records skipped as void since the last call.
    pub fn take_void(&mut self) -> Vec<Void> {
        self.assembler.take_void()
    }
}
