//! A log that counts what is appended to it.

use async_trait::async_trait;
use events::{
    Offset, Partition,
    log::{
        AppendError, Batch, Committed, EventLog, Lane, LogFault, ReadError, Record, RecordReader,
    },
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Number of batches, events and bytes appended, including claims and beats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// Batches; the log may commit several in one transaction.
    pub batches: u64,
    /// Events in them.
    pub events: u64,
    /// Size of their bodies, in bytes.
    pub body_bytes: u64,
}

impl Appended {
    /// The difference to the earlier value `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            batches: self.batches.saturating_sub(before.batches),
            events: self.events.saturating_sub(before.events),
            body_bytes: self.body_bytes.saturating_sub(before.body_bytes),
        }
    }

    /// Mean size of a body, in bytes.
    pub fn mean_body(self) -> usize {
        usize::try_from(self.body_bytes / self.events.max(1)).unwrap_or(usize::MAX)
    }
}

#[derive(Default)]
struct Counters {
    batches: AtomicU64,
    events: AtomicU64,
    body_bytes: AtomicU64,
}

/// A log whose appends are counted.
#[derive(Clone)]
pub struct Observed {
    log: Arc<dyn EventLog>,
    counters: Arc<Counters>,
}

impl Observed {
    /// Wraps `log`.
    pub fn new(log: Arc<dyn EventLog>) -> Self {
        Self { log, counters: Arc::default() }
    }

    /// What was appended through this log so far.
    pub fn appended(&self) -> Appended {
        Appended {
            batches: self.counters.batches.load(Relaxed),
            events: self.counters.events.load(Relaxed),
            body_bytes: self.counters.body_bytes.load(Relaxed),
        }
    }
}

#[async_trait]
impl EventLog for Observed {
    fn partitions(&self) -> u32 {
        self.log.partitions()
    }

    async fn fence(&self, partition: Partition, lane: usize) -> Result<Box<dyn Lane>, LogFault> {
        let lane = self.log.fence(partition, lane).await?;
        Ok(Box::new(ObservedLane { lane, counters: Arc::clone(&self.counters) }))
    }

    async fn read(
        &self,
        partition: Partition,
        from: Offset,
    ) -> Result<Box<dyn RecordReader>, ReadError> {
        self.log.read(partition, from).await
    }

    async fn end(&self, partition: Partition) -> Result<Offset, ReadError> {
        self.log.end(partition).await
    }

    async fn acknowledged(&self, partition: Partition) -> Result<Offset, ReadError> {
        self.log.acknowledged(partition).await
    }

    fn in_background(&self) -> Option<Arc<dyn EventLog>> {
        self.log.in_background()
    }
}

struct ObservedLane {
    lane: Box<dyn Lane>,
    counters: Arc<Counters>,
}

#[async_trait]
impl Lane for ObservedLane {
    async fn commit(&mut self, batch: &Batch) -> Result<Committed, AppendError> {
        let committed = self.lane.commit(batch).await?;
        let body_bytes = batch.records.iter().map(|Record { body, .. }| body.len() as u64).sum();
        self.counters.batches.fetch_add(1, Relaxed);
        self.counters.events.fetch_add(batch.records.len() as u64, Relaxed);
        self.counters.body_bytes.fetch_add(body_bytes, Relaxed);
        Ok(committed)
    }
}
