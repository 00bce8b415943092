//! How a partition gets its one writer.
//!
//! In exactly this order: fence lane 0, fence the other lanes, commit a claim through lane 0, read until that claim comes
//! back. Two openers whose steps interleave cannot both get through: the claim of the one that lost lane 0 fails, and the
//! other took every lane after it. And what the winner has read up to its own claim is all there is: an end of partition
//! may be stale, an acknowledged record that was read back is not.

use super::{
    Batch, BatchReader, Chunk, Cursor, EventLog, LANES, Lane, LogFault, ReadError, Record,
    StoredBatch, Writer,
};
use crate::{
    Environment, Fingerprint, Metadata, Partition, StreamId, StreamKind, Timestamp, planted::Bug,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A writer's announcement: this node owns the partition from this term on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The process that claims; new at each start.
    pub node: Uuid,
    /// The lanes it has fenced.
    pub lanes: usize,
}

impl Claim {
    /// The wire name of a claim.
    pub const TYPE: &'static str = "WriterClaimed";

    /// Whether a record is a claim.
    pub fn is_claim(record: &Record) -> bool {
        record.stream.kind == StreamKind::Writer && record.event_type == Self::TYPE
    }

    /// The claim that a batch consists of, if it is one.
    pub fn of(batch: &StoredBatch) -> Option<Self> {
        match batch.records.as_slice() {
            [only] if Self::is_claim(&only.record) => {
                serde_json::from_slice(&only.record.body).ok()
            }
            _ => None,
        }
    }
}

/// A record of the writer's own, in the stream of the partition's writers.
pub(super) fn writer_record(
    environment: &dyn Environment,
    partition: Partition,
    term: u64,
    batch_id: Uuid,
    event_type: &'static str,
    body: Vec<u8>,
) -> Record {
    Record {
        event_id: batch_id,
        stream: StreamId::writer(partition),
        event_type: event_type.into(),
        time: environment.now(),
        metadata: Metadata {
            version: term,
            schema: 1,
            command_id: batch_id,
            fingerprint: Fingerprint::default(),
            correlation_id: batch_id,
            causation_id: batch_id,
        },
        traceparent: None,
        body: Bytes::from(body),
    }
}

/// Why a partition did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A lane could not be fenced.
    #[error("lane {lane} could not be fenced")]
    Fence {
        /// Which lane.
        lane: usize,
        /// Why.
        #[source]
        source: LogFault,
    },
    /// The claim did not get a clean OK: somebody else is opening, or the log is out of reach.
    #[error("the claim was not committed")]
    Claim(#[source] LogFault),
    /// The partition's history could not be read.
    #[error("the history could not be read")]
    Read(#[from] ReadError),
    /// Another process has claimed the partition, and this one was to leave it to others.
    #[error("the process {node} has claimed the partition")]
    Taken {
        /// That process.
        node: Uuid,
    },
    /// A newer program fences more lanes than this one knows.
    #[error("the last writer used {found} lanes, and this program fences {LANES}")]
    Lanes {
        /// Lanes of the last claim.
        found: usize,
    },
}

/// An opening under way. The caller drives it: [`fence_lane`](Self::fence_lane) for every lane, then [`next`](Self::next)
/// until it is done, taking in the batches that come.
pub struct Opening<'a> {
    log: &'a dyn EventLog,
    environment: &'a dyn Environment,
    partition: Partition,
    node: Uuid,
    lanes: Vec<Box<dyn Lane>>,
    reader: BatchReader,
    yields: bool,
    claimed: Option<(u64, Uuid)>,
    /// The latest log time read: it never runs backwards, whatever the clock says.
    latest: Timestamp,
}

/// A step of an opening.
pub enum Step<'a> {
    /// History, to be taken in; the opening goes on.
    Read(Chunk, Opening<'a>),
    /// The own claim came back, behind this last history: the writer may serve.
    Open(Chunk, Writer),
}

impl<'a> Opening<'a> {
    /// Begins, for a caller who has taken in everything before `from`.
    ///
    /// # Errors
    /// When the partition cannot be read.
    pub async fn begin(
        log: &'a dyn EventLog,
        environment: &'a dyn Environment,
        partition: Partition,
        node: Uuid,
        from: Cursor,
    ) -> Result<Self, OpenError> {
        let reader = BatchReader::open(log, partition, from).await?;
        Ok(Self {
            log,
            environment,
            partition,
            node,
            lanes: Vec::with_capacity(LANES),
            reader,
            yields: false,
            claimed: None,
            latest: Timestamp::UNIX_EPOCH,
        })
    }

    /// Tells the latest log time before the cursor it begins at.
    #[must_use]
    pub fn not_before(mut self, latest: Timestamp) -> Self {
        self.latest = latest.max(self.latest);
        self
    }

    /// Ends without a claim when it meets another process's: for who held the partition before and may have been followed.
    /// Looking beforehand is not enough, since a claim may come between the look and the first lane.
    #[must_use]
    pub fn yielding(self, yields: bool) -> Self {
        Self { yields, ..self }
    }

    /// Whether a claim was committed: whatever is read from then on may be older than a successor's.
    pub fn has_claimed(&self) -> bool {
        self.claimed.is_some()
    }

    /// Fences the next lane; `true` while there are more.
    ///
    /// # Errors
    /// When the lane cannot be taken.
    pub async fn fence_lane(&mut self) -> Result<bool, OpenError> {
        let lane = self.lanes.len();
        let fenced = self
            .log
            .fence(self.partition, lane)
            .await
            .map_err(|source| OpenError::Fence { lane, source })?;
        self.lanes.push(fenced);
        Ok(self.lanes.len() < LANES)
    }

    /// Goes on: reads; at the end of the partition commits the claim, and again if another claim came before it.
    ///
    /// # Errors
    /// When the partition cannot be read, the claim is not committed, the last writer used more lanes, or another process
    /// has claimed it and this one [yields](Self::yielding).
    pub async fn next(mut self) -> Result<Step<'a>, OpenError> {
        debug_assert_eq!(self.lanes.len(), LANES, "every lane is fenced before the claim");
        let chunk = self.reader.next().await?;
        for claim in chunk.batches.iter().filter_map(Claim::of) {
            if claim.lanes > LANES {
                return Err(OpenError::Lanes { found: claim.lanes });
            }
        }
        let times = chunk.batches.iter().flat_map(|batch| &batch.records);
        self.latest = times.map(|stored| stored.record.time).fold(self.latest, Timestamp::max);
        if let Some((term, batch_id)) = self.claimed {
            if chunk.batches.iter().any(|batch| batch.id == batch_id) {
                return Ok(Step::Open(chunk, self.writer(term)));
            }
            // A claim of at least our term got in before ours, which is void by that.
            if chunk.cursor.term >= term {
                self.claimed = None;
            }
        }
        if self.yields {
            let mut claims = chunk.batches.iter().filter_map(Claim::of);
            if let Some(Claim { node, .. }) = claims.find(|claim| claim.node != self.node) {
                return Err(OpenError::Taken { node });
            }
        }
        if self.claimed.is_none() && chunk.at_end {
            let term = chunk.cursor.term + 1;
            if Bug::FenceWithoutClaim.is_planted() {
                return Ok(Step::Open(chunk, self.writer(term)));
            }
            self.claimed = Some(self.claim(term).await?);
            if Bug::ServeBeforeClaimIsRead.is_planted() {
                return Ok(Step::Open(chunk, self.writer(term)));
            }
        }
        Ok(Step::Read(chunk, self))
    }

    fn writer(self, term: u64) -> Writer {
        Writer::new(self.partition, term, self.lanes, self.latest)
    }

    async fn claim(&mut self, term: u64) -> Result<(u64, Uuid), OpenError> {
        let id = self.environment.uuid();
        let claim = Claim { node: self.node, lanes: LANES };
        let body = serde_json::to_vec(&claim).map_err(|error| OpenError::Claim(error.into()))?;
        let mut record =
            writer_record(self.environment, self.partition, term, id, Claim::TYPE, body);
        record.time = record.time.max(self.latest);
        let batch = Batch { id, term, records: vec![record] };
        let committed =
            self.lanes[0].commit(&batch).await.map_err(|error| OpenError::Claim(error.into()))?;
        if committed.suspect {
            // A stray commit request of this lane may hit its next transaction: begin anew with fresh lanes.
            return Err(OpenError::Claim(
                "the claim's commit was slow, and may be repeated late".into(),
            ));
        }
        Ok((term, id))
    }
}

/// Opens a partition in one go, for callers that keep no state of their own; gives what was read on the way to `fold`.
///
/// # Errors
/// As the single steps.
pub async fn open(
    log: &dyn EventLog,
    environment: &dyn Environment,
    partition: Partition,
    node: Uuid,
    from: Cursor,
    mut fold: impl FnMut(StoredBatch),
) -> Result<(Writer, Cursor), OpenError> {
    let mut opening = Opening::begin(log, environment, partition, node, from).await?;
    while opening.fence_lane().await? {}
    loop {
        match opening.next().await? {
            Step::Read(chunk, next) => {
                chunk.batches.into_iter().for_each(&mut fold);
                opening = next;
            }
            Step::Open(chunk, writer) => {
                chunk.batches.into_iter().for_each(&mut fold);
                return Ok((writer, chunk.cursor));
            }
        }
    }
}
