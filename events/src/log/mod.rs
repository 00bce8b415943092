//! The event log: its port, and the protocol that all adapters share.
//!
//! An adapter does three things: it fences a [`Lane`] and commits batches through it, it reads raw
//! records in order, and it reports where a partition ends. The rest is the same for all adapters:
//!
//! - [`header`]: the metadata stored with each event;
//! - [`assembler`]: a batch counts only if it is complete and no newer term was claimed before it;
//! - [`opening`]: a writer fences every lane, appends its claim, reads until the claim comes back,
//!   and only then serves;
//! - [`writer`]: it has one batch in flight at a time, uses its lanes in turn, and is spent after
//!   any append that did not end in a clean OK.
//!
//! [`contract`] holds the test suite that every adapter passes.

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

/// The number of lanes of a partition's writer. It is a constant and never a setting: a new writer
/// with fewer lanes would leave a lane of the previous writer unfenced.
pub const LANES: usize = 2;

/// The largest number of records in one batch.
pub const MAX_BATCH_RECORDS: usize = 5_000;

/// The largest size of one batch, bodies and headers together, in bytes. A Kafka producer sends
/// that much as one record batch.
pub const MAX_BATCH_BYTES: usize = 900_000;

/// One event as the log stores it: JSON in the body, everything else in its own field.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The event's own id (`ce_id`).
    pub event_id: Uuid,
    /// The stream (`ce_subject`, and the key on Kafka).
    pub stream: StreamId,
    /// The wire name (`ce_type`).
    pub event_type: Cow<'static, str>,
    /// When it was decided (`ce_time`).
    pub time: Timestamp,
    /// Versions and causes.
    pub metadata: Metadata,
    /// The W3C trace context of the request that caused the event.
    pub traceparent: Option<Box<str>>,
    /// The event's JSON.
    pub body: Bytes,
}

impl Record {
    /// Approximate size of the record in a batch, in bytes.
    pub fn size(&self) -> usize {
        /// The key, the CloudEvents headers and the packed header on Kafka.
        const ENVELOPE: usize = 512;
        self.body.len() + ENVELOPE
    }
}

/// A record's place in its batch, and the writer of the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The term of the writer.
    pub term: u64,
    /// The id of the batch.
    pub batch_id: Uuid,
    /// The record's index in the batch, from 0.
    pub index: u32,
    /// The number of records in the batch.
    pub len: u32,
}

/// Records that become visible all together or not at all.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The batch's id, by which a reader finds it when the outcome of its append is unknown.
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

/// A record as an adapter reads it, before batches are assembled.
#[derive(Clone, Debug, PartialEq)]
pub struct RawRecord {
    /// Its offset.
    pub offset: Offset,
    /// Its place in its batch.
    pub stamp: Stamp,
    /// The record.
    pub record: Record,
}

/// The records of one read of an adapter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawChunk {
    /// The records in order of offset; may be empty if `at_end` or if `foreign` is not.
    pub records: Vec<RawRecord>,
    /// The offsets of records that no program of this kind wrote. They are not part of the log.
    pub foreign: Vec<Offset>,
    /// The offset at which reading continues: after the last record and, at the end of the
    /// partition, also after the gap that follows it.
    pub next: Option<Offset>,
    /// Whether the reader has reached the end of the partition. If so, `next` is the value of
    /// [`EventLog::end`] at that moment.
    pub at_end: bool,
}

/// A committed batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The offsets of its records, in order.
    pub offsets: Vec<Offset>,
    /// Whether a duplicate of the commit request may still arrive at the broker (KAFKA-17754). The
    /// batch is committed, but the partition must be reopened before the next batch.
    pub suspect: bool,
}

/// Why an append was not acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// No record of the batch is or ever will be in the log.
    #[error("the batch was not appended")]
    NotApplied(#[source] LogFault),
    /// The batch may or may not be in the log. Reopening the partition tells.
    #[error("it is unknown whether the batch was appended")]
    Unknown(#[source] LogFault),
}

/// Why the log could not be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The log cannot be reached now; a retry may help.
    #[error("the log cannot be read")]
    Unavailable(#[source] LogFault),
    /// A record is damaged, or part of the history is missing. A retry does not help.
    #[error("the log is damaged in partition {partition} at offset {offset}")]
    Damaged {
        /// The partition.
        partition: Partition,
        /// The offset of the damage, or the offset at which reading was to start.
        offset: Offset,
        /// What is wrong there.
        #[source]
        source: LogFault,
    },
}

/// Why the program cannot use a log.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The log's settings could lose history or do not fit this program.
    #[error("the log {log} is refused: {reason}")]
    Refused {
        /// Which log.
        log: String,
        /// Which setting is wrong, and what it must be.
        reason: String,
    },
    /// The log is damaged. A retry does not help.
    #[error(
        "the log {log} is damaged: {reason}. Read \"Damaged disk\" in docs/operating.md before \
         you change anything there"
    )]
    Damaged {
        /// Which log.
        log: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process writes to this log.
    #[error("the log {log} is in use by another process")]
    InUse {
        /// Which log.
        log: String,
    },
    /// The log cannot be reached or created.
    #[error("the log {log} cannot be opened")]
    Unavailable {
        /// Which log.
        log: String,
        /// Why.
        #[source]
        source: LogFault,
    },
}

/// The error of an adapter's library.
pub type LogFault = Box<dyn std::error::Error + Send + Sync>;

/// The port of the log: one log with a fixed number of partitions.
#[async_trait]
pub trait EventLog: Send + Sync + 'static {
    /// The number of partitions. They are numbered from 0 and fixed when the log is created.
    fn partitions(&self) -> u32;

    /// Takes lane `lane` (below [`LANES`]) of a partition. Once this returns, commits of an earlier
    /// owner of the lane fail, and a commit that it had in flight can no longer become visible.
    ///
    /// # Errors
    /// When the lane cannot be taken.
    async fn fence(&self, partition: Partition, lane: usize) -> Result<Box<dyn Lane>, LogFault>;

    /// Reads a partition's visible records, starting with the first one at or after `from`, and
    /// waits for new ones at the end.
    ///
    /// # Errors
    /// When reading cannot start.
    async fn read(
        &self,
        partition: Partition,
        from: Offset,
    ) -> Result<Box<dyn RecordReader>, ReadError>;

    /// The current end of the visible part of a partition: every visible record is before it.
    ///
    /// # Errors
    /// When the log does not answer.
    async fn end(&self, partition: Partition) -> Result<Offset, ReadError>;

    /// The end of everything acknowledged so far. On Kafka an append is acknowledged shortly before
    /// readers see it, so this may be past [`end`](Self::end) for a moment.
    ///
    /// # Errors
    /// When the log does not answer.
    async fn acknowledged(&self, partition: Partition) -> Result<Offset, ReadError> {
        self.end(partition).await
    }

    /// Resolves when this process can never append to the log again, although one that is started
    /// anew may be able to.
    async fn lost(&self) {
        std::future::pending::<()>().await;
    }

    /// A second instance of this log for background readers, if the adapter has one. Its own
    /// threads run with the priority of the current runtime's threads and serve background readers
    /// only.
    fn in_background(&self) -> Option<Arc<dyn EventLog>> {
        None
    }
}

/// A channel through which a partition's writer commits batches.
#[async_trait]
pub trait Lane: Send {
    /// Appends a batch atomically and durably. After any error the lane must not be used again.
    ///
    /// # Errors
    /// [`AppendError::NotApplied`] only if that is certain; [`AppendError::Unknown`] in every other
    /// case.
    async fn commit(&mut self, batch: &Batch) -> Result<Committed, AppendError>;
}

/// Reads one partition in order.
#[async_trait]
pub trait RecordReader: Send {
    /// Returns the next records. At the end of the partition it says so once, then waits for new
    /// records without a polling delay. The future may be dropped while it waits; no record is
    /// lost.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] for a record that cannot be decoded, [`ReadError::Unavailable`] when
    /// a retry may help.
    async fn next(&mut self) -> Result<RawChunk, ReadError>;
}

/// The wire name, without an allocation if this program knows it.
pub(crate) fn known_type(kind: crate::StreamKind, name: &str) -> Cow<'static, str> {
    let known = crate::Event::types(kind).iter().map(|&(known, _)| known);
    match known.chain([Claim::TYPE, Writer::BEAT]).find(|known| *known == name) {
        Some(known) => Cow::Borrowed(known),
        None => Cow::Owned(name.to_owned()),
    }
}
