//! The log in one SQLite file, for a single machine. It is the default when no Kafka is configured.
//!
//! One process writes, protected by a lock file. Other processes can read and follow the log
//! meanwhile. In the writing process one thread commits the appends of all partitions: all that are
//! waiting, in one durable transaction. Readers that keep up get their batches from memory, the
//! others from the file.
//!
//! - `store`: the tables, their checks, and reads from them;
//! - `mark`: a record of what was acknowledged, which reveals a log that has lost its end;
//! - `committer`: the thread that commits;
//! - `tail`: the most recent batches and the end of each partition, in memory;
//! - `reader`: reads from the tail or from the file;
//! - `watcher`: follows a log that another process writes.

mod committer;
mod mark;
mod reader;
mod store;
mod tail;
mod watcher;

use super::{
    AppendError, Batch, Committed, ConnectError, EventLog, Lane, LogFault, ReadError, RecordReader,
    frame,
};
use crate::{Offset, Partition};
use async_trait::async_trait;
use bytes::Bytes;
use committer::{Append, Committer, Queue};
use reader::{EmbeddedReader, Shared};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::oneshot;
use watcher::Watcher;

/// Faults of this adapter itself, not of SQLite.
#[derive(Debug, thiserror::Error)]
enum EmbeddedFault {
    #[error("the lane was fenced")]
    Fenced,
    #[error("a batch of {records} records and {bytes} bytes is empty or too large")]
    Size { records: usize, bytes: usize },
    #[error("the log has no partition {0} or no lane {1}")]
    NoSuchLane(Partition, usize),
    #[error("the log is closed")]
    Closed,
    #[error("this process only reads the log")]
    ReadOnly,
    #[error("an earlier commit failed: the log must be reopened")]
    Poisoned,
    #[error("the transaction was rolled back: {0}")]
    RolledBack(Arc<rusqlite::Error>),
    #[error("the commit failed: {0}")]
    CommitFailed(Arc<rusqlite::Error>),
    #[error("the checksum does not match")]
    Checksum,
    #[error("the batch before this one is missing")]
    Missing,
    #[error("the partition ends at {0}")]
    BeyondEnd(Offset),
}

/// The log in `log.sqlite` of a directory; see the [module](self).
///
/// Dropping the last handle and lane waits for the commits in flight, one transaction at most.
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    source: Source,
}

/// The part that reports new batches to the readers.
enum Source {
    Committer(Arc<Queue>),
    /// Kept because dropping it stops its thread.
    Watcher {
        _watcher: Watcher,
    },
}

impl EmbeddedLog {
    /// Opens the log for writing and creates it if it does not exist. `partitions` is the number of
    /// partitions of a new log (12 by default) and must match that of an existing one. Blocks on
    /// I/O.
    ///
    /// # Errors
    /// [`ConnectError::InUse`] when another process writes to it, [`ConnectError::Refused`] for
    /// another number of partitions or another format, [`ConnectError::Damaged`] when part of the
    /// history is missing.
    pub fn open(dir: &Path, partitions: Option<u32>) -> Result<Self, ConnectError> {
        let opened = store::open_to_write(dir, partitions)?;
        let shared = Arc::new(Shared::new(dir, &mark::ends(&opened.edges), true));
        let committer = Committer::new(opened, Arc::clone(&shared));
        let queue = committer.start().map_err(|source| ConnectError::Unavailable {
            log: store::path(dir).display().to_string(),
            source: source.into(),
        })?;
        Ok(Self { shared, source: Source::Committer(Arc::new(queue)) })
    }

    /// Opens the log for reading, also while another process writes to it. Readers follow the
    /// writer with a delay of up to 20 ms. Blocks on I/O.
    ///
    /// # Errors
    /// The errors of [`open`](Self::open), and [`ConnectError::Unavailable`] when there is no log.
    pub fn open_read_only(dir: &Path) -> Result<Self, ConnectError> {
        let (connection, ends) = store::open_to_read(dir)?;
        let shared = Arc::new(Shared::new(dir, &ends, false));
        let watcher = Watcher::start(connection, Arc::clone(&shared)).map_err(|source| {
            ConnectError::Unavailable {
                log: store::path(dir).display().to_string(),
                source: source.into(),
            }
        })?;
        Ok(Self { shared, source: Source::Watcher { _watcher: watcher } })
    }

    /// Finishes the appends in flight, then closes the file and releases its lock. Later appends
    /// are not applied. Readers can still read the existing records.
    pub async fn close(&self) {
        if let Source::Committer(queue) = &self.source {
            queue.close().await;
        }
    }

    /// Commits only the first `keep` records of a batch, with the stamps of the whole batch, as a
    /// broken writer would.
    ///
    /// # Errors
    /// The errors of [`Lane::commit`].
    #[cfg(any(test, feature = "testing"))]
    pub async fn tear(
        &self,
        partition: Partition,
        batch: &Batch,
        keep: usize,
    ) -> Result<Committed, AppendError> {
        let Source::Committer(queue) = &self.source else {
            return Err(AppendError::NotApplied(EmbeddedFault::ReadOnly.into()));
        };
        let epoch = queue.fence(partition, 0).await.map_err(AppendError::NotApplied)?;
        let lane = EmbeddedLane { queue: Arc::clone(queue), partition, lane: 0, epoch };
        let kept = Batch { records: batch.records[..keep].to_vec(), ..batch.clone() };
        let (mut whole, part) = (frames(batch)?, frames(&kept)?);
        // All stamps have the same size, so the frames of the part tell how many bytes of the whole
        // to keep.
        lane.append(whole.split_to(part.len()), keep).await
    }
}

#[async_trait]
impl EventLog for EmbeddedLog {
    fn partitions(&self) -> u32 {
        self.shared.partitions()
    }

    async fn fence(&self, partition: Partition, lane: usize) -> Result<Box<dyn Lane>, LogFault> {
        let Source::Committer(queue) = &self.source else {
            return Err(EmbeddedFault::ReadOnly.into());
        };
        let epoch = queue.fence(partition, lane).await?;
        Ok(Box::new(EmbeddedLane { queue: Arc::clone(queue), partition, lane, epoch }))
    }

    async fn read(
        &self,
        partition: Partition,
        from: Offset,
    ) -> Result<Box<dyn RecordReader>, ReadError> {
        let reader = EmbeddedReader::open(Arc::clone(&self.shared), partition, from).await?;
        Ok(Box::new(reader))
    }

    async fn end(&self, partition: Partition) -> Result<Offset, ReadError> {
        self.shared.end(partition).await
    }

    async fn lost(&self) {
        self.shared.lost().await;
    }
}

struct EmbeddedLane {
    queue: Arc<Queue>,
    partition: Partition,
    lane: usize,
    epoch: u64,
}

fn frames(batch: &Batch) -> Result<Bytes, AppendError> {
    let frames = frame::encode(batch).map_err(|error| AppendError::NotApplied(error.into()))?;
    Ok(Bytes::from(frames))
}

impl EmbeddedLane {
    async fn append(&self, frames: Bytes, records: usize) -> Result<Committed, AppendError> {
        let (answer, answered) = oneshot::channel();
        let checksum = store::begin_checksum(&frames);
        let Self { partition, lane, epoch, .. } = *self;
        let append = Append { partition, lane, epoch, frames, records, checksum, answer };
        self.queue.append(append).await.map_err(AppendError::NotApplied)?;
        answered.await.unwrap_or_else(|_| Err(AppendError::Unknown(EmbeddedFault::Closed.into())))
    }
}

#[async_trait]
impl Lane for EmbeddedLane {
    async fn commit(&mut self, batch: &Batch) -> Result<Committed, AppendError> {
        self.append(frames(batch)?, batch.records.len()).await
    }
}
