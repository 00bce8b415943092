//! Opens a partition for its one writer.
//!
//! The steps, in exactly this order: fence lane 0, fence the other lanes, commit a claim through
//! lane 0, read until that claim comes back. If the steps of two openers interleave, at most one
//! succeeds: the claim of the opener that lost lane 0 fails, and the other opener takes every lane
//! after it. What the winner has read up to its own claim is the whole history. A broker's end of
//! partition may be stale, but a claim that was read back proves that everything before it was
//! read.

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

/// The record with which a writer takes over a partition: its node owns the partition from this
/// term on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The id of the claiming process; new at each start.
    pub node: Uuid,
    /// The number of lanes that it has fenced.
    pub lanes: usize,
}

impl Claim {
    /// The wire name of a claim.
    pub const TYPE: &'static str = "WriterClaimed";

    /// Whether a record is a claim.
    pub fn is_claim(record: &Record) -> bool {
        record.stream.kind == StreamKind::Writer && record.event_type == Self::TYPE
    }

    /// The claim in a batch, if the batch is one.
    pub fn of(batch: &StoredBatch) -> Option<Self> {
        match batch.records.as_slice() {
            [only] if Self::is_claim(&only.record) => {
                serde_json::from_slice(&only.record.body).ok()
            }
            _ => None,
        }
    }
}

/// A claim or beat: a record in the stream of the partition's writers.
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

/// Why a partition could not be opened.
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
    /// The claim was not acknowledged: another process is opening the partition, or the log cannot
    /// be reached.
    #[error("the claim was not committed")]
    Claim(#[source] LogFault),
    /// The partition's history could not be read.
    #[error("the history could not be read")]
    Read(#[from] ReadError),
    /// Another process has claimed the partition, and this one was told to yield.
    #[error("process {node} has claimed the partition")]
    Taken {
        /// That process.
        node: Uuid,
    },
    /// The last writer was a newer program that uses more lanes than this one.
    #[error("the last writer used {found} lanes, but this program fences only {LANES}")]
    Lanes {
        /// The number of lanes in the last claim.
        found: usize,
    },
}

/// An opening in progress. The caller drives it: it calls [`fence_lane`](Self::fence_lane) for
/// every lane, then [`next`](Self::next) until the writer is there, and applies the batches on the
/// way.
pub struct Opening<'a> {
    log: &'a dyn EventLog,
    environment: &'a dyn Environment,
    partition: Partition,
    node: Uuid,
    lanes: Vec<Box<dyn Lane>>,
    reader: BatchReader,
    yields: bool,
    claimed: Option<(u64, Uuid)>,
    /// The latest log time read. Log time never runs backwards, even if the clock does.
    latest: Timestamp,
}

/// A step of an opening.
pub enum Step<'a> {
    /// History for the caller to apply; the opening continues.
    Read(Chunk, Opening<'a>),
    /// The opener's own claim came back in this chunk: after applying it, the writer may serve.
    Open(Chunk, Writer),
}

impl<'a> Opening<'a> {
    /// Starts an opening for a caller that has already applied everything before `from`.
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

    /// Sets the latest log time before the cursor at which the opening starts.
    #[must_use]
    pub fn not_before(mut self, latest: Timestamp) -> Self {
        self.latest = latest.max(self.latest);
        self
    }

    /// With `true`, the opening fails when it reads another process's claim, instead of claiming
    /// the partition itself. A former owner uses this: it may have a successor. A check before the
    /// opening is not enough, because a claim may come between the check and the first fence.
    #[must_use]
    pub fn yielding(self, yields: bool) -> Self {
        Self { yields, ..self }
    }

    /// Whether this opening has committed a claim. From then on, another process's claim that is
    /// read may be older than this one.
    pub fn has_claimed(&self) -> bool {
        self.claimed.is_some()
    }

    /// Fences the next lane. Returns `true` while there are more.
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

    /// Takes the next step: reads, and at the end of the partition commits the claim. If another
    /// claim got in first, it commits a new one.
    ///
    /// # Errors
    /// When the partition cannot be read, the claim is not committed, the last writer used more
    /// lanes, or another process has claimed the partition and this one [yields](Self::yielding).
    pub async fn next(mut self) -> Result<Step<'a>, OpenError> {
        debug_assert_eq!(
            self.lanes.len(),
            LANES,
            "the caller must fence every lane before the claim"
        );
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
            // Another claim of our term or a higher one got in first, so ours is void.
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
            // A late duplicate of the commit request may hit this lane's next transaction: start
            // again with new lanes.
            return Err(OpenError::Claim(
                "the claim's commit was slow; a duplicate of it may arrive later".into(),
            ));
        }
        Ok((term, id))
    }
}

/// Opens a partition in one call, for callers that need no control over the steps. Passes the
/// batches read on the way to `fold`.
///
/// # Errors
/// The errors of the single steps.
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
