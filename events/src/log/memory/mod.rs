//! The log in memory, for tests and simulations. It can produce on demand every fault of a real
//! log.
//!
//! Every clone is a handle of the same log, so a test can kill and restart the log's users. It
//! needs no runtime and uses only its [`Environment`]'s clock. Like every log adapter it leaves
//! gaps between batches.

mod state;

use super::{
    AppendError, Batch, Committed, EventLog, LANES, Lane, LogFault, MAX_BATCH_RECORDS, RawChunk,
    RawRecord, ReadError, RecordReader,
};
use crate::{Environment, Offset, Partition};
use async_trait::async_trait;
use futures::future::poll_fn;
use state::{DelayedCommit, State, Veil};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// What happens to one of the next commits, including those of claims and beats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The commit succeeds. Use it for the commits before the one that is to fail.
    Clean,
    /// The batch does not land, and the writer is told so.
    NotApplied,
    /// The batch lands, and the writer is told that the outcome is unknown.
    UnknownLanded,
    /// The batch does not land, and the writer is told that the outcome is unknown.
    UnknownLost,
    /// The writer is told that the outcome is unknown. The batch lands when
    /// [`MemoryLog::deliver_ghosts`] is called, in spite of any fence, like a delayed request of an
    /// old transaction.
    Ghost,
    /// Only this many records of the batch land, and the writer is told that the outcome is
    /// unknown.
    Cut(usize),
    /// The batch lands, and the writer is told that the request may be repeated late. If the lane
    /// commits again, the late request hits that commit: half of the new batch lands, and the
    /// writer is told that all of it did.
    Suspect,
    /// The commit waits until [`MemoryLog::release`] is called. If its lane is fenced before that,
    /// the batch never lands.
    Hold,
}

#[derive(Debug, thiserror::Error)]
enum MemoryFault {
    #[error("the lane was fenced")]
    Fenced,
    #[error("a test made this commit fail")]
    Told,
    #[error("the log is gone")]
    Gone,
    #[error("a batch of {0} records is empty or too large")]
    Size(usize),
    #[error("the log has no partition {0} or no lane {1}")]
    NoSuchLane(Partition, usize),
    #[error("the offset is beyond the end of the log")]
    BeyondEnd,
}

/// A handle of a log in memory; see the [module](self).
#[derive(Clone)]
pub struct MemoryLog(Arc<Inner>);

struct Inner {
    partitions: Vec<Slot>,
    environment: Arc<dyn Environment>,
    latency: Mutex<Duration>,
}

/// A partition, and the channel that wakes readers when more of it is visible.
struct Slot {
    state: Mutex<State>,
    bell: watch::Sender<()>,
}

/// The switches for tests. They panic for a partition that the log does not have.
impl MemoryLog {
    /// Makes an empty log.
    pub fn new(partitions: u32, environment: Arc<dyn Environment>) -> Self {
        let slot = |_| Slot { state: Mutex::default(), bell: watch::Sender::new(()) };
        let partitions = (0..partitions).map(slot).collect();
        Self(Arc::new(Inner { partitions, environment, latency: Mutex::default() }))
    }

    /// Sets the faults of a partition's next commits, one for each. Later commits succeed.
    pub fn inject(&self, partition: Partition, faults: impl IntoIterator<Item = Fault>) {
        self.state(partition).faults.extend(faults);
    }

    /// Makes every commit wait this long, by the environment's clock, before it lands.
    pub fn set_latency(&self, latency: Duration) {
        *self.0.latency.lock().unwrap_or_else(PoisonError::into_inner) = latency;
    }

    /// From now on commits are acknowledged but not visible until [`reveal`](Self::reveal) is
    /// called.
    pub fn hide(&self, partition: Partition) {
        self.state(partition).veil = Veil::UntilRevealed;
    }

    /// From now on commits are acknowledged but not visible until readers have looked in vain
    /// `looks` times: asked for the end, or read without finding new records.
    pub fn hide_for(&self, partition: Partition, looks: u32) {
        self.state(partition).veil = Veil::ForLooks(looks);
    }

    /// Makes hidden commits visible, and hides no more.
    pub fn reveal(&self, partition: Partition) {
        self.state(partition).reveal();
        self.ring(partition);
    }

    /// Lets the delayed commits land, in the order in which they came.
    pub fn release(&self, partition: Partition) {
        let mut state = self.state(partition);
        let delayed = std::mem::take(&mut state.delayed);
        let mut land = |DelayedCommit { batch, answer, .. }: DelayedCommit| {
            (state.land(&batch, batch.records.len(), self.gap()), answer)
        };
        let landed: Vec<_> = delayed.into_iter().map(&mut land).collect();
        drop(state);
        self.ring(partition);
        for (offsets, answer) in landed {
            // The caller may have gone away; the batch has landed anyway.
            let _ = answer.send(Ok(Committed { offsets, suspect: false }));
        }
    }

    /// The number of delayed commits.
    pub fn delayed(&self, partition: Partition) -> usize {
        self.state(partition).delayed.len()
    }

    /// Lets the ghosts land, in the order of their commits, after everything that has landed so
    /// far.
    pub fn deliver_ghosts(&self, partition: Partition) {
        let mut state = self.state(partition);
        for batch in std::mem::take(&mut state.ghosts) {
            state.land(&batch, batch.records.len(), self.gap());
        }
        drop(state);
        self.ring(partition);
    }

    /// Lets the first `keep` records of a batch land, without a lane.
    pub fn cut(&self, partition: Partition, batch: &Batch, keep: usize) {
        self.state(partition).land(batch, keep, self.gap());
        self.ring(partition);
    }

    /// Removes pending faults, makes hidden commits visible and lets the delayed ones land. Keeps
    /// ghosts.
    pub fn heal(&self, partition: Partition) {
        self.state(partition).faults.clear();
        self.reveal(partition);
        self.release(partition);
    }

    /// All records that have landed from `from` on, hidden or not, and the offset of the next
    /// batch. For the checks of a test only.
    pub fn landed(&self, partition: Partition, from: Offset) -> (Vec<RawRecord>, Offset) {
        self.state(partition).landed(from)
    }

    fn state(&self, partition: Partition) -> MutexGuard<'_, State> {
        let slot = &self.0.partitions[partition.0 as usize];
        slot.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self, partition: Partition) {
        self.0.partitions[partition.0 as usize].bell.send_replace(());
    }

    /// The width of the next gap.
    fn gap(&self) -> i64 {
        if self.0.environment.random().is_multiple_of(2) { 1 } else { 3 }
    }

    /// Counts a look in vain. Returns whether hidden commits will become visible after more looks.
    fn look(&self, partition: Partition) -> bool {
        let mut state = self.state(partition);
        let end = state.end();
        let more = state.look();
        let revealed = state.end() > end;
        drop(state);
        if revealed {
            self.ring(partition);
        }
        more
    }
}

#[async_trait]
impl EventLog for MemoryLog {
    fn partitions(&self) -> u32 {
        u32::try_from(self.0.partitions.len()).unwrap_or(u32::MAX)
    }

    async fn fence(&self, partition: Partition, lane: usize) -> Result<Box<dyn Lane>, LogFault> {
        if partition.0 >= self.partitions() || lane >= LANES {
            return Err(MemoryFault::NoSuchLane(partition, lane).into());
        }
        let (epoch, fenced) = self.state(partition).fence(lane);
        for commit in fenced {
            let _ = commit.answer.send(Err(AppendError::NotApplied(MemoryFault::Fenced.into())));
        }
        Ok(Box::new(MemoryLane { log: self.clone(), partition, lane, epoch }))
    }

    async fn read(
        &self,
        partition: Partition,
        from: Offset,
    ) -> Result<Box<dyn RecordReader>, ReadError> {
        if partition.0 >= self.partitions() || from > self.state(partition).next() {
            let source = MemoryFault::BeyondEnd.into();
            return Err(ReadError::Damaged { partition, offset: from, source });
        }
        let bell = self.0.partitions[partition.0 as usize].bell.subscribe();
        let log = self.clone();
        Ok(Box::new(MemoryReader { log, partition, next: from, told: false, bell }))
    }

    async fn end(&self, partition: Partition) -> Result<Offset, ReadError> {
        let end = self.state(partition).end();
        self.look(partition);
        Ok(end)
    }

    async fn acknowledged(&self, partition: Partition) -> Result<Offset, ReadError> {
        Ok(self.state(partition).next())
    }
}

struct MemoryLane {
    log: MemoryLog,
    partition: Partition,
    lane: usize,
    epoch: u64,
}

/// The answer to a commit, now or later.
enum Answer {
    Now(Result<Committed, AppendError>),
    Later(oneshot::Receiver<Result<Committed, AppendError>>),
}

impl MemoryLane {
    fn answer(&self, batch: &Batch) -> Answer {
        let mut state = self.log.state(self.partition);
        let len = batch.records.len();
        if state.epochs[self.lane] != self.epoch {
            return Answer::Now(Err(AppendError::NotApplied(MemoryFault::Fenced.into())));
        }
        if !(1..=MAX_BATCH_RECORDS).contains(&len) {
            return Answer::Now(Err(AppendError::NotApplied(MemoryFault::Size(len).into())));
        }
        let unknown = || Err(AppendError::Unknown(MemoryFault::Told.into()));
        if std::mem::take(&mut state.strays[self.lane]) {
            let offsets = state.land_half(batch, self.log.gap());
            return Answer::Now(Ok(Committed { offsets, suspect: false }));
        }
        let fault = state.faults.pop_front().unwrap_or(Fault::Clean);
        state.strays[self.lane] = fault == Fault::Suspect;
        let mut land = |keep| state.land(batch, keep, self.log.gap());
        Answer::Now(match fault {
            Fault::Clean => Ok(Committed { offsets: land(len), suspect: false }),
            Fault::Suspect => Ok(Committed { offsets: land(len), suspect: true }),
            Fault::NotApplied => Err(AppendError::NotApplied(MemoryFault::Told.into())),
            Fault::UnknownLost => unknown(),
            Fault::UnknownLanded => {
                land(len);
                unknown()
            }
            Fault::Cut(keep) => {
                land(keep);
                unknown()
            }
            Fault::Ghost => {
                state.ghosts.push(batch.clone());
                unknown()
            }
            Fault::Hold => {
                let (answer, later) = oneshot::channel();
                let batch = batch.clone();
                state.delayed.push(DelayedCommit { batch, lane: self.lane, answer });
                return Answer::Later(later);
            }
        })
    }
}

#[async_trait]
impl Lane for MemoryLane {
    async fn commit(&mut self, batch: &Batch) -> Result<Committed, AppendError> {
        let latency = *self.log.0.latency.lock().unwrap_or_else(PoisonError::into_inner);
        if !latency.is_zero() {
            self.log.0.environment.sleep(latency).await;
        }
        let answer = self.answer(batch);
        self.log.ring(self.partition);
        match answer {
            Answer::Now(answer) => answer,
            Answer::Later(later) => {
                later.await.unwrap_or_else(|_| Err(AppendError::Unknown(MemoryFault::Gone.into())))
            }
        }
    }
}

struct MemoryReader {
    log: MemoryLog,
    partition: Partition,
    next: Offset,
    /// Whether the caller was told that `next` is the end.
    told: bool,
    bell: watch::Receiver<()>,
}

#[async_trait]
impl RecordReader for MemoryReader {
    async fn next(&mut self) -> Result<RawChunk, ReadError> {
        loop {
            self.bell.mark_unchanged();
            let (records, next, at_end) = self.log.state(self.partition).read(self.next);
            if next > self.next || !self.told {
                (self.next, self.told) = (next, at_end);
                return Ok(RawChunk { records, next: Some(next), at_end, ..RawChunk::default() });
            }
            if self.log.look(self.partition) {
                yield_now().await;
            } else if self.bell.changed().await.is_err() {
                return Err(ReadError::Unavailable(MemoryFault::Gone.into()));
            }
        }
    }
}

/// Lets the other tasks run, on any executor.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
