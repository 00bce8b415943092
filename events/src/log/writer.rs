//! The one writer of a partition. It has one batch in flight at a time and uses its lanes in turn.

use super::{AppendError, Batch, LANES, Lane, Record, opening::writer_record};
use crate::{Environment, Offset, Partition, Timestamp, planted::Bug};
use uuid::Uuid;

/// Appends to a partition that an [`Opening`](super::Opening) has opened.
pub struct Writer {
    partition: Partition,
    term: u64,
    lanes: Vec<Box<dyn Lane>>,
    turn: usize,
    spent: bool,
    /// The latest log time before the next batch.
    latest: Timestamp,
}

/// An earlier append was not acknowledged, so the partition must be reopened.
#[derive(Debug, thiserror::Error)]
#[error("the writer is spent: its partition must be reopened")]
struct Spent;

impl Writer {
    /// The wire name of a beat: a record without content that proves that the writer still owns its
    /// partition.
    pub const BEAT: &'static str = "WriterBeat";

    pub(super) fn new(
        partition: Partition,
        term: u64,
        lanes: Vec<Box<dyn Lane>>,
        latest: Timestamp,
    ) -> Self {
        // The claim used lane 0.
        Self { partition, term, lanes, turn: 1 % LANES, spent: false, latest }
    }

    /// The term of this writer.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Whether the partition must be reopened before the next append, because an append was not
    /// acknowledged cleanly.
    pub fn is_spent(&self) -> bool {
        self.spent
    }

    /// Makes a batch of this writer's term.
    pub fn batch(&self, id: Uuid, records: Vec<Record>) -> Batch {
        Batch { id, term: self.term, records }
    }

    /// Makes a batch that only proves ownership.
    pub fn beat(&self, environment: &dyn Environment) -> Batch {
        let id = environment.uuid();
        let mut record =
            writer_record(environment, self.partition, self.term, id, Self::BEAT, b"{}".to_vec());
        record.time = record.time.max(self.latest);
        self.batch(id, vec![record])
    }

    /// Appends a batch and returns the offsets of its records.
    ///
    /// A slow commit returns its offsets too, but the writer is then spent: a late duplicate of the
    /// commit request could hit the lane's next transaction (KAFKA-17754).
    ///
    /// # Errors
    /// [`AppendError`]. The writer is spent after any error.
    pub async fn append(&mut self, batch: &Batch) -> Result<Vec<Offset>, AppendError> {
        if self.spent {
            return Err(AppendError::NotApplied(Spent.into()));
        }
        // Spent until the acknowledgement arrives, so that the writer is also spent if this future
        // is dropped.
        self.spent = true;
        let committed = self.lanes[self.turn].commit(batch).await?;
        self.spent = committed.suspect && !Bug::SlowCommitTrusted.is_planted();
        self.turn = (self.turn + 1) % LANES;
        let times = batch.records.iter().map(|record| record.time);
        self.latest = times.fold(self.latest, Timestamp::max);
        Ok(committed.offsets)
    }
}
