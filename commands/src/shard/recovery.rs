//! Opening a partition: the shard folds the whole log before it serves.

use super::{
    batch::Round,
    memory::{HistoryError, Memory},
};
use crate::request::CommandError;
use events::{
    Environment, Offset, Partition,
    log::{
        BatchReader, Claim, EventLog, Opening, ReadError, StoredBatch, Writer,
        opening::{OpenError, Step},
    },
    planted::Bug,
};
use std::time::Duration;
use uuid::Uuid;

/// A batch whose append had an unknown outcome. The log tells whether it was appended.
pub struct Doubt {
    batch_id: Uuid,
    round: Round,
    landed: Option<Vec<Offset>>,
}

impl Doubt {
    /// The round whose batch may or may not be in the log.
    pub fn new(round: Round) -> Self {
        Self { batch_id: round.batch_id, round, landed: None }
    }

    fn look_at(&mut self, batch: &StoredBatch) {
        if batch.id == self.batch_id {
            self.landed = Some(batch.records.iter().map(|stored| stored.offset).collect());
        }
    }

    /// Answers the callers of the round. Every part of the log that could hold the batch must have
    /// been read.
    pub fn resolve(self, partition: Partition) {
        for waiting in self.round.waiting {
            match &self.landed {
                Some(offsets) => waiting.answer(partition, offsets),
                None => waiting.fail(&CommandError::NotApplied("the append failed")),
            }
        }
    }
}

/// What a shard keeps while its partition is not open.
pub struct Dormant {
    /// Everything it has read.
    pub memory: Memory,
    /// The round whose outcome is not known yet.
    pub doubt: Option<Doubt>,
    /// The term and the node of the newest claim in the log.
    pub claim: Option<(u64, Uuid)>,
    /// The claim of another process that seems to be gone.
    pub abandoned: Option<(u64, Uuid)>,
}

/// Who owns the partition after an attempt to open it.
pub enum Opened {
    /// This shard.
    Serving {
        /// Appends to the partition.
        writer: Writer,
        /// A moment before the claim was appended. The lease counts from it.
        began: Duration,
    },
    /// Another process, which has claimed it meanwhile.
    Foreign {
        /// The term of its claim.
        term: u64,
        /// Its id.
        node: Uuid,
    },
}

/// Why a partition could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum NotOpened {
    /// A later attempt may succeed.
    #[error("the partition could not be opened at this moment")]
    Later(#[source] OpenError),
    /// The log cannot be folded.
    #[error("the log of the partition cannot be folded")]
    History(#[from] HistoryError),
    /// The log is damaged, or was written by a newer version of this program.
    #[error("the partition cannot be opened")]
    Never(#[source] OpenError),
}

impl From<OpenError> for NotOpened {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Read(ReadError::Damaged { .. }) | OpenError::Lanes { .. } => {
                Self::Never(error)
            }
            _ => Self::Later(error),
        }
    }
}

impl From<ReadError> for NotOpened {
    fn from(error: ReadError) -> Self {
        OpenError::from(error).into()
    }
}

impl Dormant {
    fn take_in(
        &mut self,
        batches: &[StoredBatch],
        cursor: events::log::Cursor,
    ) -> Result<(), HistoryError> {
        for batch in batches {
            if let Some(claim) = Claim::of(batch) {
                self.claim = Some((batch.term, claim.node));
            }
            if let Some(doubt) = &mut self.doubt {
                doubt.look_at(batch);
            }
            self.memory.fold(batch)?;
        }
        self.memory.cursor = cursor;
        Ok(())
    }

    /// Opens the partition. It reads first and fences last: meanwhile a process that owns the
    /// partition goes on serving it. With `reopening` it gives way if another process has claimed
    /// the partition: a process that was suspended must not take back what another one has claimed.
    pub async fn open(
        &mut self,
        log: &dyn EventLog,
        environment: &dyn Environment,
        node: Uuid,
        reopening: bool,
    ) -> Result<Opened, NotOpened> {
        self.catch_up(log).await?;
        match self.claim {
            Some((term, owner)) if reopening && owner != node && self.claim != self.abandoned => {
                Ok(Opened::Foreign { term, node: owner })
            }
            _ => self.take(log, environment, node, reopening).await,
        }
    }

    /// Reads the log to its end, to find out who owns the partition now.
    pub async fn catch_up(&mut self, log: &dyn EventLog) -> Result<(), NotOpened> {
        let mut reader = BatchReader::open(log, self.memory.partition, self.memory.cursor).await?;
        loop {
            let chunk = reader.next().await?;
            self.take_in(&chunk.batches, chunk.cursor)?;
            if chunk.at_end {
                return Ok(());
            }
        }
    }

    /// Fences the writers before it, claims the partition, and reads up to the claim. Returns the
    /// writer, and a moment before the claim was appended. The lease counts from that moment: a
    /// later one would prove nothing, because the claim may have been read long after it was
    /// appended, and another process may have claimed the partition since. A process that `yields`
    /// stops if it meets another process's claim.
    async fn take(
        &mut self,
        log: &dyn EventLog,
        environment: &dyn Environment,
        node: Uuid,
        yields: bool,
    ) -> Result<Opened, NotOpened> {
        let (partition, cursor) = (self.memory.partition, self.memory.cursor);
        let opening = Opening::begin(log, environment, partition, node, cursor).await?;
        let mut opening = opening
            .not_before(self.memory.time)
            .yielding(yields && !Bug::PartitionTakenBack.is_planted());
        while opening.fence_lane().await? {}
        let mut began = environment.monotonic();
        loop {
            if !opening.has_claimed() {
                began = environment.monotonic();
            }
            match opening.next().await? {
                Step::Read(chunk, next) => {
                    self.take_in(&chunk.batches, chunk.cursor)?;
                    opening = next;
                }
                Step::Open(chunk, writer) => {
                    self.take_in(&chunk.batches, chunk.cursor)?;
                    return Ok(Opened::Serving { writer, began });
                }
            }
        }
    }
}
