//! Readers of the embedded log. They read from the tail if it reaches back far enough, else from
//! the file.

use super::EmbeddedFault;
use super::store::{self, connect_to_read};
use super::tail::Tail;
use crate::log::{RawChunk, RawRecord, ReadError, RecordReader};
use crate::{Offset, Partition};
use async_trait::async_trait;
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Semaphore, watch};

/// The most connections that read concurrently; more would only compete for the same cores.
const CONNECTIONS: usize = 4;

/// Size of the recent batches kept in memory for all partitions together, in bytes.
const TAIL_BYTES: usize = 16 << 20;

/// The state that readers share: the tails and the connections to the file.
pub(super) struct Shared {
    pub tails: Vec<Tail>,
    /// Whether this process writes. If so, the tails are always up to date.
    writes: bool,
    /// Whether the committer can never commit again.
    pub is_lost: watch::Sender<bool>,
    dir: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl Shared {
    pub fn new(dir: &Path, ends: &[Offset], writes: bool) -> Self {
        let limit = TAIL_BYTES / ends.len().max(1);
        Self {
            tails: ends.iter().map(|&end| Tail::new(end, limit)).collect(),
            writes,
            is_lost: watch::Sender::new(false),
            dir: dir.to_owned(),
            idle: Mutex::default(),
            permits: Arc::new(Semaphore::new(CONNECTIONS)),
        }
    }

    /// Resolves when the committer can never commit again.
    pub async fn lost(&self) {
        // The sender lives as long as `self`, so this cannot fail.
        let _ = self.is_lost.subscribe().wait_for(|is_lost| *is_lost).await;
    }

    pub fn partitions(&self) -> u32 {
        u32::try_from(self.tails.len()).unwrap_or(u32::MAX)
    }

    /// The current end of the partition, also if another process writes to it.
    pub async fn end(self: &Arc<Self>, partition: Partition) -> Result<Offset, ReadError> {
        if !self.writes {
            let unreadable = move |error| store::unreadable(error, partition, Offset::START);
            let ends = self
                .blocking(move |connection| store::read_ends(connection).map_err(unreadable))
                .await?;
            self.move_ends(&ends);
        }
        let tail = self.tails.get(partition.0 as usize);
        tail.map(Tail::end).ok_or_else(|| ReadError::Damaged {
            partition,
            offset: Offset::START,
            source: EmbeddedFault::NoSuchLane(partition, 0).into(),
        })
    }

    /// Moves the ends of the partitions forward to `ends`.
    pub fn move_ends(&self, ends: &[Offset]) {
        self.tails.iter().zip(ends).for_each(|(tail, &end)| tail.move_end(end));
    }

    /// Runs `work` with a read connection, on a thread that may block.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Connection) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let unavailable = |_| ReadError::Unavailable(EmbeddedFault::Closed.into());
        let permits = Arc::clone(&self.permits);
        let permit = permits.acquire_owned().await.map_err(unavailable)?;
        let shared = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let idle = || shared.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let ready = idle().pop();
            let connection = match ready {
                Some(connection) => connection,
                None => connect_to_read(&shared.dir)
                    .map_err(|error| ReadError::Unavailable(error.into()))?,
            };
            let result = work(&connection);
            if result.is_ok() {
                idle().push(connection);
            }
            result
        });
        done.await.map_err(|error| ReadError::Unavailable(error.into()))?
    }
}

/// Reads one partition.
pub(super) struct EmbeddedReader {
    shared: Arc<Shared>,
    partition: Partition,
    next: Offset,
    end: watch::Receiver<Offset>,
    /// Whether the caller was told that `next` is the end.
    told: bool,
}

impl EmbeddedReader {
    pub async fn open(
        shared: Arc<Shared>,
        partition: Partition,
        from: Offset,
    ) -> Result<Self, ReadError> {
        let end = shared.end(partition).await?;
        if from > end {
            let source = EmbeddedFault::BeyondEnd(end).into();
            return Err(ReadError::Damaged { partition, offset: from, source });
        }
        let end = shared.tails[partition.0 as usize].watch();
        Ok(Self { shared, partition, next: from.max(Offset::START), end, told: false })
    }

    async fn read(&self, end: Offset) -> Result<(Vec<RawRecord>, Offset), ReadError> {
        let (partition, from) = (self.partition, self.next);
        let Some(rows) = self.shared.tails[partition.0 as usize].since(from) else {
            let read = move |connection: &Connection| store::read(connection, partition, from, end);
            return self.shared.blocking(read).await;
        };
        let (mut records, mut next) = (Vec::new(), from);
        for row in rows {
            row.decode(from, &mut records).map_err(|source| ReadError::Damaged {
                partition,
                offset: row.first,
                source,
            })?;
            next = row.next;
        }
        Ok((records, next))
    }
}

#[async_trait]
impl RecordReader for EmbeddedReader {
    async fn next(&mut self) -> Result<RawChunk, ReadError> {
        loop {
            let end = *self.end.borrow_and_update();
            if self.next < end {
                let (records, next) = self.read(end).await?;
                // If another process writes, only the file knows the end; the next call asks it.
                let at_end = self.shared.writes && next >= end;
                (self.next, self.told) = (next, at_end);
                return Ok(RawChunk { records, next: Some(next), at_end, ..RawChunk::default() });
            }
            if !self.told {
                self.told = self.shared.end(self.partition).await? == self.next;
                if self.told {
                    return Ok(RawChunk {
                        records: Vec::new(),
                        next: Some(self.next),
                        at_end: true,
                        ..RawChunk::default()
                    });
                }
                continue;
            }
            if self.end.changed().await.is_err() {
                return Err(ReadError::Unavailable(EmbeddedFault::Closed.into()));
            }
        }
    }
}
