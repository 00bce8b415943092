//! The event log: its port, and the discipline that all adapters share.
//!
//! An adapter does three small things: it fences and commits on a [`Lane`], it reads raw records in order, and it tells
//! where a partition ends. What makes a log of it is here, once:
//!
//! - [`header`]: what rides along with each event;
//! - [`assembler`]: a batch counts only when it is complete and its term is not overtaken;
//! - [`opening`]: fence every lane, claim, read until the own claim comes back, only then serve;
//! - [`writer`]: one open batch at a time, lanes in turn, spent after anything but a clean OK.
//!
//! [`contract`] holds the suite that every adapter passes.

pub mod assembler;
#[cfg(any(test, feature = "testing"))]
pub mod contract;
pub mod embedded;
pub mod frame;
pub mod header;
pub mod kafka;
pub mod memory;
pub mod opening;
pub mod writer;

use crate::{Metadata, Offset, Partition, StreamId, Timestamp};
use async_trait::async_trait;
use bytes::Bytes;
use std::{borrow::Cow, sync::Arc};
use uuid::Uuid;

pub use assembler::{BatchReader, Chunk, Cursor, StoredBatch, StoredRecord};
pub use opening::{Claim, Opening};
pub use writer::Writer;

/// Lanes of a partition's writer: a constant of the log, never a setting. A successor with fewer lanes would leave one of
/// its predecessor's unfenced.
pub const LANES: usize = 2;

/// The most records in one batch.
pub const MAX_BATCH_RECORDS: usize = 5_000;

/// The most bytes of bodies and headers in one batch: what leaves a Kafka producer as one record batch.
pub const MAX_BATCH_BYTES: usize = 900_000;

/// One event as the log keeps it: JSON in the body, the rest beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The event's own id (`ce_id`).
    pub event_id: Uuid,
    /// The stream (`ce_subject`, and the key).
    pub stream: StreamId,
    /// The wire name (`ce_type`).
    pub event_type: Cow<'static, str>,
    /// When it was decided (`ce_time`).
    pub time: Timestamp,
    /// Versions and causes.
    pub metadata: Metadata,
    /// The W3C trace context of the request it came from.
    pub traceparent: Option<Box<str>>,
    /// JSON.
    pub body: Bytes,
}

impl Record {
    /// About how many bytes the record takes in a batch.
    pub fn size(&self) -> usize {
        /// Key, CloudEvents headers and the packed header on Kafka.
        const ENVELOPE: usize = 512;
        self.body.len() + ENVELOPE
    }
}

/// Where a record stands in its batch, and whose batch it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The term of the writer.
    pub term: u64,
    /// The batch.
    pub batch_id: Uuid,
    /// The record's place in the batch, from 0.
    pub index: u32,
    /// Records in the batch.
    pub len: u32,
}

/// Records that become visible together or not at all.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Names the batch, so that it can be looked for when the outcome of its append is unknown.
    pub id: Uuid,
    /// The term of the writer.
    pub term: u64,
    /// The records, in order; never empty.
    pub records: Vec<Record>,
}

impl Batch {
    /// The stamps of the records, in order.
    pub fn stamps(&self) -> impl Iterator<Item = Stamp> + '_ {
        let len = u32::try_from(self.records.len()).unwrap_or(u32::MAX);
        (0..len).map(move |index| Stamp { term: self.term, batch_id: self.id, index, len })
    }
}

/// A record as an adapter reads it, before batches are put together.
#[derive(Clone, Debug, PartialEq)]
pub struct RawRecord {
    /// Its offset.
    pub offset: Offset,
    /// Its place in its batch.
    pub stamp: Stamp,
    /// The record.
    pub record: Record,
}

/// What an adapter read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawChunk {
    /// Records in order of offset; may be empty when `at_end`.
    pub records: Vec<RawRecord>,
    /// Where reading goes on: past the last record, and past the gap behind it once the end has been reached.
    pub next: Option<Offset>,
    /// Whether this was all there is for now. Then `next` is what [`EventLog::end`] said at that moment.
    pub at_end: bool,
}

/// A committed batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The offsets of its records, in order.
    pub offsets: Vec<Offset>,
    /// Whether the answer is true but a stray duplicate of the commit request may still be under way (KAFKA-17754): the
    /// writer must be reopened before the next batch.
    pub suspect: bool,
}

/// Why an append did not end in a clean OK.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Nothing of the batch is or will be in the log.
    #[error("the batch was not appended")]
    NotApplied(#[source] LogFault),
    /// The batch may or may not be in the log; reopening tells.
    #[error("it is unknown whether the batch was appended")]
    Unknown(#[source] LogFault),
}

/// Why the log could not be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The log cannot be reached right now; trying again may help.
    #[error("the log cannot be read")]
    Unavailable(#[source] LogFault),
    /// The log does not hold what it must: a damaged record, or history that is gone. Trying again does not help.
    #[error("the log is damaged in partition {partition} at offset {offset}")]
    Damaged {
        /// The partition.
        partition: Partition,
        /// The offset, or where reading was to begin.
        offset: Offset,
        /// What is wrong there.
        #[source]
        source: LogFault,
    },
}

/// Why a log is refused at start, or cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The log would lose history or has another shape than it must have.
    #[error("the log {log} is refused: {reason}")]
    Refused {
        /// Which log.
        log: String,
        /// What is wrong with it, and what it must be.
        reason: String,
    },
    /// The log does not hold what it must. Trying again does not help.
    #[error(
        "the log {log} is damaged: {reason}. Change nothing there before you have read \"Hostile disk \
         and input\" in the README"
    )]
    Damaged {
        /// Which log.
        log: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process writes this log.
    #[error("the log {log} is in use by another process")]
    InUse {
        /// Which log.
        log: String,
    },
    /// The log cannot be reached or made.
    #[error("the log {log} cannot be opened")]
    Unavailable {
        /// Which log.
        log: String,
        /// Why.
        #[source]
        source: LogFault,
    },
}

/// What an adapter's library said.
pub type LogFault = Box<dyn std::error::Error + Send + Sync>;

/// The port: one log of a fixed number of partitions.
#[async_trait]
pub trait EventLog: Send + Sync + 'static {
    /// Partitions, numbered from 0; fixed when the log is made.
    fn partitions(&self) -> u32;

    /// Takes lane `lane` (below [`LANES`]) of a partition: from its return on, nothing that an earlier holder of the lane
    /// has under way can become visible, and its commits fail.
    ///
    /// # Errors
    /// When the lane cannot be taken now.
    async fn fence(&self, partition: Partition, lane: usize) -> Result<Box<dyn Lane>, LogFault>;

    /// Reads a partition's visible records from `from` on (the first record at or after it), and then as they come.
    ///
    /// # Errors
    /// When reading cannot begin.
    async fn read(
        &self,
        partition: Partition,
        from: Offset,
    ) -> Result<Box<dyn RecordReader>, ReadError>;

    /// Where the visible part of a partition ends now: every visible record is before it.
    ///
    /// # Errors
    /// When the log does not answer.
    async fn end(&self, partition: Partition) -> Result<Offset, ReadError>;

    /// Where everything ends that was acknowledged by now. That may be past [`end`](Self::end) for a moment, where an
    /// append is acknowledged before readers see it, as on Kafka.
    ///
    /// # Errors
    /// When the log does not answer.
    async fn acknowledged(&self, partition: Partition) -> Result<Offset, ReadError> {
        self.end(partition).await
    }

    /// This log for readers in the background, where that is another one: what threads of its own do for readers, they do
    /// with the priority of the current runtime's threads, and for no other readers.
    fn in_background(&self) -> Option<Arc<dyn EventLog>> {
        None
    }
}

/// One way for a partition's writer to commit batches.
#[async_trait]
pub trait Lane: Send {
    /// Appends a batch, atomically and durably. After any error the lane must not be used again.
    ///
    /// # Errors
    /// [`AppendError::NotApplied`] only when certain; everything in doubt is [`AppendError::Unknown`].
    async fn commit(&mut self, batch: &Batch) -> Result<Committed, AppendError>;
}

/// Reads one partition in order.
#[async_trait]
pub trait RecordReader: Send {
    /// What comes next. Tells once when the end is reached, then waits for more without polling delay. May be dropped while
    /// waiting: nothing is lost by it.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] for what does not read, [`ReadError::Unavailable`] when a later try may work.
    async fn next(&mut self) -> Result<RawChunk, ReadError>;
}

/// The wire name without an allocation where this program knows it.
pub(crate) fn known_type(kind: crate::StreamKind, name: &str) -> Cow<'static, str> {
    let known = crate::Event::types(kind).iter().map(|&(known, _)| known);
    match known.chain([Claim::TYPE, Writer::BEAT]).find(|known| *known == name) {
        Some(known) => Cow::Borrowed(known),
        None => Cow::Owned(name.to_owned()),
    }
}
