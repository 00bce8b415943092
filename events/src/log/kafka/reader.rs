//! A reader of one partition: drains the partition's queue on the task that asks, woken by the library. No thread and no
//! copy in between, and what waits is bounded by the library's prefetch.
//!
//! Where the queue is empty, the reader's place is what the library says it has handed over, control records included: not an
//! offset plus one, which may stand before them for ever, and never a watermark, which may be ahead of what was handed over.

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

/// The most records of one chunk, so that a task that reads does not keep others waiting.
const CHUNK_RECORDS: usize = 1_000;

/// The most bytes of bodies in one chunk, but for the last one's.
const CHUNK_BYTES: usize = 1 << 20;

/// How often a reader that hears nothing asks whether there is something to hear.
const WATCH: Duration = Duration::from_secs(10);

/// Reads one partition.
pub(super) struct KafkaReader {
    lease: Lease,
    inquirer: Arc<Inquirer>,
    environment: Arc<dyn Environment>,
    /// Where reading goes on.
    next: Offset,
    /// The end when reading began, if that was not behind it: reaching it is told at once, where the library would wait a
    /// fetch longer.
    first_end: Option<Offset>,
    /// Records in the last chunk: room for the next one, which is about as long while reading catches up.
    room: usize,
    /// What is left of the memory for bodies.
    bodies: BytesMut,
    /// The last end that was told.
    told: Option<Offset>,
    /// What came behind the records of the last chunk.
    failed: Option<ReadError>,
    /// It has failed and cannot go on; another reader may.
    over: bool,
}

/// What was in the queue.
#[derive(Default)]
struct Drained {
    records: Vec<RawRecord>,
    /// The queue held nothing more.
    empty: bool,
    /// The library met the end of the partition, and nothing after it.
    eof: bool,
    failed: Option<ReadError>,
    /// The record that was handed over and is refused: reading goes on with it, not behind it.
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
        // Beyond the end is for the broker to judge: a new leader may not know yet how much is committed.
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

    /// A chunk, if there is anything to tell.
    fn take(&mut self) -> Result<Option<RawChunk>, ReadError> {
        if let Some(failed) = self.failed.take() {
            self.over = true;
            return Err(failed);
        }
        if self.over || self.lease.is_broken() {
            return Err(ReadError::Unavailable("the consumer has failed".into()));
        }
        let Drained { records, empty, eof, failed, refused } = self.drain();
        self.room = records.len();
        self.next = match (refused, records.last()) {
            (Some(refused), _) => refused,
            // In the midst of records any place behind the last one will do, be it a control record's.
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
        } else if records.is_empty() {
            self.over = self.failed.is_some();
            return self.failed.take().map_or(Ok(None), Err);
        }
        Ok(Some(RawChunk { records, next: Some(self.next), at_end }))
    }

    fn drain(&mut self) -> Drained {
        let mut drained = Drained { records: Vec::with_capacity(self.room), ..Drained::default() };
        let (mut place, mut bytes) = (self.next, 0);
        let mut bodies = std::mem::take(&mut self.bodies);
        // To the last entry, whatever it is: the library wakes nobody for a queue that was not empty.
        while drained.records.len() < CHUNK_RECORDS && bytes < CHUNK_BYTES {
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
                    Ok(raw) => {
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
    ) -> Result<RawRecord, ReadError> {
        let offset = Offset(message.offset());
        if offset < place {
            let source = format!("offset {offset} came after {place}").into();
            return Err(ReadError::Unavailable(source));
        }
        record::read(message, bodies).map_err(|error| self.damaged(offset, error))
    }

    fn failure(&self, place: Offset, error: KafkaError) -> ReadError {
        use RDKafkaErrorCode::{
            AutoOffsetReset, BadCompression, BadMessage, InvalidMessage, OffsetOutOfRange,
        };
        let damage =
            [AutoOffsetReset, BadCompression, BadMessage, InvalidMessage, OffsetOutOfRange];
        match error {
            // The library does not say where: it is the first record after the last one it handed over.
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

    /// Waits for the library to report something, at most for [`WATCH`]: then asks the log whether there should have been
    /// something. Consumers that stall without a word were seen in the field.
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
        // It may have come just now: give it the time of a few fetches.
        match select(pin!(self.lease.woken()), self.environment.sleep(WATCH)).await {
            Either::Left(_) => {
                // Was taken from the next wait.
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
