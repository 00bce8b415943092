//! Opening a partition: what its log says is taken in, and only then it is served.

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

/// A batch whose append was answered "unknown": the log will tell.
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

    /// Answers those who waited: everything that could hold the batch has been read.
    pub fn resolve(self, partition: Partition) {
        for waiting in self.round.waiting {
            match &self.landed {
                Some(offsets) => waiting.answer(partition, offsets),
                None => waiting.fail(&CommandError::NotApplied("the append failed")),
            }
        }
    }
}

/// What is left of a shard while it is closed.
pub struct Closed {
    /// What it knows.
    pub memory: Memory,
    /// What it does not know yet.
    pub doubt: Option<Doubt>,
    /// The newest claim seen: its term and node.
    pub claim: Option<(u64, Uuid)>,
}

/// Why a partition is not open.
#[derive(Debug, thiserror::Error)]
pub enum ClosedError {
    /// A later try may work.
    #[error("the partition did not open")]
    Later(#[source] OpenError),
    /// The log holds what this program cannot take in.
    #[error("the partition cannot be taken in")]
    History(#[from] HistoryError),
    /// The log is damaged, or of a newer program.
    #[error("the partition cannot be opened")]
    Never(#[source] OpenError),
}

impl From<OpenError> for ClosedError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Read(ReadError::Damaged { .. }) | OpenError::Lanes { .. } => {
                Self::Never(error)
            }
            _ => Self::Later(error),
        }
    }
}

impl From<ReadError> for ClosedError {
    fn from(error: ReadError) -> Self {
        OpenError::from(error).into()
    }
}

impl Closed {
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

    /// Reads what has come since, to see who owns the partition now: before a reopening, so that a process that was away
    /// does not take back what another has claimed meanwhile.
    pub async fn catch_up(&mut self, log: &dyn EventLog) -> Result<(), ClosedError> {
        let mut reader = BatchReader::open(log, self.memory.partition, self.memory.cursor).await?;
        loop {
            let chunk = reader.next().await?;
            self.take_in(&chunk.batches, chunk.cursor)?;
            if chunk.at_end {
                return Ok(());
            }
        }
    }

    /// Fences, claims and reads; gives the writer, and a moment before its claim was committed: later ones prove nothing, for
    /// what was read since may have been read long ago. A process that `yields` claims nothing behind another's claim.
    pub async fn open(
        &mut self,
        log: &dyn EventLog,
        environment: &dyn Environment,
        node: Uuid,
        yields: bool,
    ) -> Result<(Writer, Duration), ClosedError> {
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
                    return Ok((writer, began));
                }
            }
        }
    }
}
