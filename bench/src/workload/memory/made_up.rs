//! A log whose history is made up while it is read, so that a long one takes neither memory nor
//! disk.

use super::kind::{Event, Kind};
use async_trait::async_trait;
use events::{
    Currency, Environment, Metadata, Offset, Partition,
    log::{
        AppendError, Batch, Committed, EventLog, Lane, LogFault, RawChunk, RawRecord, ReadError,
        RecordReader, Stamp, memory::MemoryLog,
    },
};
use std::sync::Arc;
use uuid::Uuid;

/// The number of things whose events make one batch.
const BATCH: u64 = 64;

/// The offset at which the records begin that were really appended. The made-up ones lie before it.
const APPENDED: i64 = 1 << 40;

/// A history of `count` things of a kind, spread evenly over the partitions, and a log in memory
/// that takes what is appended after it.
pub struct MadeUpLog {
    kind: Kind,
    count: u64,
    currency: Currency,
    appended: MemoryLog,
}

impl MadeUpLog {
    /// Makes the log. Nothing is made up before it is read.
    pub fn new(
        kind: Kind,
        count: u64,
        currency: Currency,
        partitions: u32,
        environment: Arc<dyn Environment>,
    ) -> Self {
        Self { kind, count, currency, appended: MemoryLog::new(partitions, environment) }
    }

    /// The number of things in a partition.
    fn of_partition(&self, partition: Partition) -> u64 {
        let (partition, partitions) = (u64::from(partition.0), u64::from(self.partitions()));
        self.count / partitions + u64::from(partition < self.count % partitions)
    }
}

/// The place in the log in memory of a place in the whole log.
fn within(offset: Offset) -> Offset {
    Offset((offset.0 - APPENDED).max(0))
}

/// The place in the whole log of a place in the log in memory.
fn behind(offset: Offset) -> Offset {
    Offset(offset.0 + APPENDED)
}

#[async_trait]
impl EventLog for MadeUpLog {
    fn partitions(&self) -> u32 {
        self.appended.partitions()
    }

    async fn fence(&self, partition: Partition, lane: usize) -> Result<Box<dyn Lane>, LogFault> {
        Ok(Box::new(LaneBehind(self.appended.fence(partition, lane).await?)))
    }

    /// The write side reads from the start, or, after a failure, from a place behind the whole
    /// history.
    async fn read(
        &self,
        partition: Partition,
        from: Offset,
    ) -> Result<Box<dyn RecordReader>, ReadError> {
        let count = if from == Offset::START { self.of_partition(partition) } else { 0 };
        let appended = self.appended.read(partition, within(from)).await?;
        let (kind, currency, offset) = (self.kind, self.currency, from.0);
        Ok(Box::new(Reader { kind, currency, partition, next: 0, count, offset, appended }))
    }

    async fn end(&self, partition: Partition) -> Result<Offset, ReadError> {
        self.appended.end(partition).await.map(behind)
    }
}

struct LaneBehind(Box<dyn Lane>);

#[async_trait]
impl Lane for LaneBehind {
    async fn commit(&mut self, batch: &Batch) -> Result<Committed, AppendError> {
        let Committed { offsets, suspect } = self.0.commit(batch).await?;
        Ok(Committed { offsets: offsets.into_iter().map(behind).collect(), suspect })
    }
}

struct Reader {
    kind: Kind,
    currency: Currency,
    partition: Partition,
    /// The next thing of the partition.
    next: u64,
    /// The number of things in the partition.
    count: u64,
    offset: i64,
    appended: Box<dyn RecordReader>,
}

impl Reader {
    /// Makes up the next batch.
    fn make_up(&mut self) -> RawChunk {
        let end = self.count.min(self.next + BATCH);
        let partition = u64::from(self.partition.0);
        let history = |nth| self.kind.history(self.currency, partition, nth);
        let events: Vec<Event> = (self.next..end).flat_map(history).collect();
        let batch_id = Uuid::from_u64_pair(u64::from(self.partition.0), self.next);
        let len = u32::try_from(events.len()).unwrap_or(u32::MAX);
        let records = (0..).zip(events).map(|(index, event)| {
            let offset = Offset(self.offset + i64::from(index));
            // The history is older than the first claim, whose term is 1.
            let stamp = Stamp { term: 0, batch_id, index, len };
            RawRecord { offset, stamp, record: record(&event, batch_id) }
        });
        let records = records.collect();
        self.offset += i64::from(len);
        self.next = end;
        RawChunk { records, foreign: Vec::new(), next: Some(Offset(self.offset)), at_end: false }
    }
}

fn record(event: &Event, batch_id: Uuid) -> events::log::Record {
    let metadata = Metadata {
        version: event.version,
        schema: event.body.schema(),
        command_id: event.command_id,
        fingerprint: event.fingerprint,
        correlation_id: event.command_id,
        causation_id: event.command_id,
    };
    event.body.to_record(batch_id, event.stream, event.time, metadata)
}

#[async_trait]
impl RecordReader for Reader {
    async fn next(&mut self) -> Result<RawChunk, ReadError> {
        if self.next < self.count {
            return Ok(self.make_up());
        }
        let mut chunk = self.appended.next().await?;
        for record in &mut chunk.records {
            record.offset = behind(record.offset);
        }
        chunk.foreign.iter_mut().for_each(|offset| *offset = behind(*offset));
        chunk.next = chunk.next.map(behind);
        Ok(chunk)
    }
}
