//! A reader of one partition. It drains the partition's queue on the calling task and is woken by
//! the library. No thread and no copy is in between, and the library's prefetch limits bound the
//! queue.
//!
//! When the queue is empty, the reader's offset is the position that the library reports, which
//! includes control records. The last record's offset plus one may stay before control records for
//! ever, and a watermark may be ahead of the records handed over.

use super::{Inquirer, consumers::Lease, record};
use crate::{
    Environment, Offset,
    log::{LogFault, RawChunk, RawRecord, ReadError, RecordReader},
};
use async_trait::async_trait;
use bytes::BytesMut;
use futures::future::{Either, select};
use rdkafka::{
    Message,
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
};
use std::{pin::pin, sync::Arc, time::Duration};

/// The most records in one chunk, so that a reading task does not block others for long.
const CHUNK_RECORDS: usize = 1_000;

/// The size of the bodies at which a chunk ends, in bytes; the last record may exceed it.
const CHUNK_BYTES: usize = 1 << 20;

/// How often an idle reader checks whether it should have received records.
const WATCH: Duration = Duration::from_secs(10);

/// Reads one partition.
pub(super) struct KafkaReader {
    lease: Lease,
    inquirer: Arc<Inquirer>,
    environment: Arc<dyn Environment>,
    /// The offset at which reading continues.
    next: Offset,
    /// The end of the partition when reading began, unless reading began after it. The reader
    /// reports this end at once; the library would report it one fetch later.
    first_end: Option<Offset>,
    /// Number of records in the last chunk; used as the capacity of the next one.
    room: usize,
    /// The rest of the memory for bodies.
    bodies: BytesMut,
    /// The last end that was reported.
    told: Option<Offset>,
    /// The error that followed the records of the last chunk.
    failed: Option<ReadError>,
    /// The reader has failed and cannot continue; a new reader may.
    over: bool,
}

/// The entries taken from the queue.
#[derive(Default)]
struct Drained {
    records: Vec<RawRecord>,
    /// The offsets of records of other programs.
    foreign: Vec<Offset>,
    /// Whether the queue was emptied.
    empty: bool,
    /// Whether the library reported the end of the partition and no record after it.
    eof: bool,
    failed: Option<ReadError>,
    /// A record of ours that was handed over but cannot be decoded. Reading continues at this
    /// record, not after it.
    refused: Option<Offset>,
}

impl KafkaReader {
    pub(super) fn new(
        lease: Lease,
        from: Offset,
        end: Offset,
        inquirer: Arc<Inquirer>,
        environment: Arc<dyn Environment>,
    ) -> Self {
        // If `from` is beyond the end, let the broker decide: a new leader may not know yet how
        // much is committed.
        let first_end = Some(end).filter(|&end| from <= end);
        Self {
            lease,
            inquirer,
            environment,
            next: from,
            first_end,
            room: 0,
            bodies: BytesMut::new(),
            told: None,
            failed: None,
            over: false,
        }
    }

    /// Returns a chunk if there are records or a new end to report.
    fn take(&mut self) -> Result<Option<RawChunk>, ReadError> {
        if let Some(failed) = self.failed.take() {
            self.over = true;
            return Err(failed);
        }
        if self.over || self.lease.is_broken() {
            return Err(ReadError::Unavailable("the consumer has failed".into()));
        }
        let Drained { records, foreign, empty, eof, failed, refused } = self.drain();
        self.report(&foreign);
        self.room = records.len();
        self.next = match (refused, records.last()) {
            (Some(refused), _) => refused,
            // With more records waiting, any offset after the last record will do, even one of a
            // control record.
            (None, Some(last)) if !empty && !eof && failed.is_none() => Offset(last.offset.0 + 1),
            _ => {
                let place = self.lease.position();
                let place = place.map_err(|error| ReadError::Unavailable(error.into()))?;
                place.unwrap_or(self.next)
            }
        };
        self.failed = failed;
        let at_end = eof || (empty && self.first_end.take_if(|end| *end <= self.next).is_some());
        if at_end && self.told != Some(self.next) {
            self.told = Some(self.next);
        } else if records.is_empty() && foreign.is_empty() {
            self.over = self.failed.is_some();
            return self.failed.take().map_or(Ok(None), Err);
        }
        Ok(Some(RawChunk { records, foreign, next: Some(self.next), at_end }))
    }

    fn drain(&mut self) -> Drained {
        let mut drained = Drained { records: Vec::with_capacity(self.room), ..Drained::default() };
        let (mut place, mut bytes) = (self.next, 0);
        let mut bodies = std::mem::take(&mut self.bodies);
        // Drain the queue to its last entry: the library wakes the reader only when an empty queue
        // gets an entry.
        while drained.records.len() + drained.foreign.len() < CHUNK_RECORDS && bytes < CHUNK_BYTES {
            match self.lease.poll() {
                None => {
                    drained.empty = true;
                    break;
                }
                Some(Err(KafkaError::PartitionEOF(_))) => drained.eof = true,
                Some(Err(error)) => {
                    drained.failed = Some(self.failure(place, error));
                    break;
                }
                Some(Ok(message)) => match self.read(&message, place, &mut bodies) {
                    Ok(None) => {
                        place = Offset(message.offset());
                        drained.eof = false;
                        drained.foreign.push(place);
                    }
                    Ok(Some(raw)) => {
                        place = raw.offset;
                        bytes += raw.record.body.len();
                        drained.eof = false;
                        drained.records.push(raw);
                    }
                    Err(error) => {
                        drained.failed = Some(error);
                        drained.refused = Some(Offset(message.offset()));
                        break;
                    }
                },
            }
        }
        self.bodies = bodies;
        drained
    }

    fn read(
        &self,
        message: &BorrowedMessage<'_>,
        place: Offset,
        bodies: &mut BytesMut,
    ) -> Result<Option<RawRecord>, ReadError> {
        let offset = Offset(message.offset());
        if offset < place {
            let source = format!("offset {offset} came after {place}").into();
            return Err(ReadError::Unavailable(source));
        }
        match record::read(message, bodies) {
            Ok(raw) => Ok(Some(raw)),
            // Each access to a header is slow, so only what does not read is looked at again.
            Err(_) if record::is_foreign(message) => Ok(None),
            Err(error) => Err(self.damaged(offset, error)),
        }
    }

    fn report(&self, foreign: &[Offset]) {
        let Some(first) = foreign.first() else { return };
        metrics::counter!("orderlog_foreign_records_total").increment(foreign.len() as u64);
        tracing::warn!(
            partition = self.lease.partition().0,
            offset = first.0,
            records = foreign.len(),
            "records of another program are in the topic: they do not count"
        );
    }

    fn failure(&self, place: Offset, error: KafkaError) -> ReadError {
        use RDKafkaErrorCode::{
            AutoOffsetReset, BadCompression, BadMessage, InvalidMessage, OffsetOutOfRange,
        };
        let damage =
            [AutoOffsetReset, BadCompression, BadMessage, InvalidMessage, OffsetOutOfRange];
        match error {
            // The library does not report the offset. The damage is at the first record after the
            // last one handed over.
            KafkaError::MessageConsumption(code) if damage.contains(&code) => {
                let stands = self.lease.position().ok().flatten().unwrap_or(place);
                self.damaged(stands.max(place), error)
            }
            _ => ReadError::Unavailable(error.into()),
        }
    }

    fn damaged(&self, offset: Offset, source: impl Into<LogFault>) -> ReadError {
        ReadError::Damaged { partition: self.lease.partition(), offset, source: source.into() }
    }

    /// Waits until the library has new entries. After [`WATCH`] it asks the broker whether there
    /// should have been records, because consumers that stall silently have been seen in practice.
    async fn wait(&self) -> Result<(), ReadError> {
        let woken = pin!(self.lease.woken());
        match select(woken, self.environment.sleep(WATCH)).await {
            Either::Left(_) => Ok(()),
            Either::Right(_) => self.watch().await,
        }
    }

    async fn watch(&self) -> Result<(), ReadError> {
        let bounds = self.inquirer.bounds(self.lease.partition()).await;
        let (_, end) = bounds.map_err(ReadError::Unavailable)?;
        if end <= self.next {
            return Ok(());
        }
        // The records may be new: give the consumer the time of a few fetches.
        match select(pin!(self.lease.woken()), self.environment.sleep(WATCH)).await {
            Either::Left(_) => {
                // This wake-up was consumed here; restore it for the next wait.
                self.lease.wake();
                Ok(())
            }
            Either::Right(_) => {
                self.lease.give_up();
                Err(ReadError::Unavailable("the consumer has stalled".into()))
            }
        }
    }
}

#[async_trait]
impl RecordReader for KafkaReader {
    async fn next(&mut self) -> Result<RawChunk, ReadError> {
        loop {
            if let Some(chunk) = self.take()? {
                return Ok(chunk);
            }
            self.wait().await?;
        }
    }
}
