//! A log that shows some of its records differently to readers, as an older program would see them.

use async_trait::async_trait;
use bytes::Bytes;
use events::{
    Offset, Partition, StreamId,
    log::{EventLog, Lane, LogFault, RawChunk, RawRecord, ReadError, RecordReader},
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// How a record is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Plain,
    /// Its type has an unknown name.
    Unknown,
    /// Its schema version is newer than any known one.
    Newer,
    /// Its body is not JSON.
    Garbled,
    /// It has no event, like the records of writers.
    Nothing,
    /// Reading fails at it.
    Damaged,
}

impl Seen {
    fn show(self, partition: Partition, raw: &mut RawRecord) {
        let record = &mut raw.record;
        match self {
            Self::Plain | Self::Damaged => {}
            Self::Unknown => record.event_type = "From\0TheFuture".into(),
            Self::Newer => record.metadata.schema = 99,
            Self::Garbled => record.body = Bytes::from_static(b"{\0"),
            Self::Nothing => record.stream = StreamId::writer(partition),
        }
    }
}

type Look = dyn Fn(Partition, &RawRecord) -> Seen + Send + Sync;

pub struct Doctored {
    log: Arc<dyn EventLog>,
    look: Arc<Look>,
    healed: Arc<AtomicBool>,
}

impl Doctored {
    pub fn new(
        log: Arc<dyn EventLog>,
        look: impl Fn(Partition, &RawRecord) -> Seen + Send + Sync + 'static,
    ) -> Self {
        Self { log, look: Arc::new(look), healed: Arc::default() }
    }

    /// Shows all records unchanged from now on.
    pub fn heal(&self) {
        self.healed.store(true, Ordering::Relaxed);
    }

    /// Shows the chosen records differently from now on.
    pub fn hurt(&self) {
        self.healed.store(false, Ordering::Relaxed);
    }
}

#[async_trait]
impl EventLog for Doctored {
    fn partitions(&self) -> u32 {
        self.log.partitions()
    }

    async fn fence(&self, partition: Partition, lane: usize) -> Result<Box<dyn Lane>, LogFault> {
        self.log.fence(partition, lane).await
    }

    async fn read(
        &self,
        partition: Partition,
        from: Offset,
    ) -> Result<Box<dyn RecordReader>, ReadError> {
        let (look, healed) = (Arc::clone(&self.look), Arc::clone(&self.healed));
        let inner = self.log.read(partition, from).await?;
        Ok(Box::new(Reader { inner, partition, look, healed }))
    }

    async fn end(&self, partition: Partition) -> Result<Offset, ReadError> {
        self.log.end(partition).await
    }
}

struct Reader {
    inner: Box<dyn RecordReader>,
    partition: Partition,
    look: Arc<Look>,
    healed: Arc<AtomicBool>,
}

#[async_trait]
impl RecordReader for Reader {
    async fn next(&mut self) -> Result<RawChunk, ReadError> {
        let mut chunk = self.inner.next().await?;
        if self.healed.load(Ordering::Relaxed) {
            return Ok(chunk);
        }
        for raw in &mut chunk.records {
            let seen = (self.look)(self.partition, raw);
            if seen == Seen::Damaged {
                let (partition, offset) = (self.partition, raw.offset);
                return Err(ReadError::Damaged { partition, offset, source: "bent".into() });
            }
            seen.show(self.partition, raw);
        }
        Ok(chunk)
    }
}
