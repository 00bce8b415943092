//! The one writer of a partition: lanes in turn, one open batch at a time.

use super::{AppendError, Batch, LANES, Lane, Record, opening::writer_record};
use crate::{Environment, Offset, Partition, Timestamp, planted::Bug};
use uuid::Uuid;

/// Appends to a partition that [`Opening`](super::Opening) has opened.
pub struct Writer {
    partition: Partition,
    term: u64,
    lanes: Vec<Box<dyn Lane>>,
    turn: usize,
    spent: bool,
    /// The latest log time before its next batch.
    latest: Timestamp,
}

/// The writer had trouble before and must be reopened.
#[derive(Debug, thiserror::Error)]
#[error("the writer is spent: its partition must be reopened")]
struct Spent;

impl Writer {
    /// The wire name of a beat: a record that proves the writer still owns its partition, and says nothing else.
    pub const BEAT: &'static str = "WriterBeat";

    pub(super) fn new(
        partition: Partition,
        term: u64,
        lanes: Vec<Box<dyn Lane>>,
        latest: Timestamp,
    ) -> Self {
        // The claim went through lane 0.
        Self { partition, term, lanes, turn: 1 % LANES, spent: false, latest }
    }

    /// The term of this writer.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Whether the partition must be reopened before the next append: after anything but a clean OK.
    pub fn is_spent(&self) -> bool {
        self.spent
    }

    /// A batch of this writer's term.
    pub fn batch(&self, id: Uuid, records: Vec<Record>) -> Batch {
        Batch { id, term: self.term, records }
    }

    /// A batch that only proves ownership.
    pub fn beat(&self, environment: &dyn Environment) -> Batch {
        let id = environment.uuid();
        let mut record =
            writer_record(environment, self.partition, self.term, id, Self::BEAT, b"{}".to_vec());
        record.time = record.time.max(self.latest);
        self.batch(id, vec![record])
    }

    /// Appends a batch: the offsets of its records, or certainly nothing, or unknown.
    ///
    /// A commit that was slow is answered truthfully and spends the writer: a stray repetition of the commit request could
    /// hit the lane's next transaction (KAFKA-17754).
    ///
    /// # Errors
    /// [`AppendError`]; the writer is spent after any.
    pub async fn append(&mut self, batch: &Batch) -> Result<Vec<Offset>, AppendError> {
        if self.spent {
            return Err(AppendError::NotApplied(Spent.into()));
        }
        // Spent until the clean OK is here, so that a caller who is dropped while waiting leaves a spent writer behind.
        self.spent = true;
        let committed = self.lanes[self.turn].commit(batch).await?;
        self.spent = committed.suspect && !Bug::SlowCommitTrusted.is_planted();
        self.turn = (self.turn + 1) % LANES;
        let times = batch.records.iter().map(|record| record.time);
        self.latest = times.fold(self.latest, Timestamp::max);
        Ok(committed.offsets)
    }
}
