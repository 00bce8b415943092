//! The one thread that writes. It takes all waiting requests, commits their batches in one durable
//! transaction, and answers the callers.
//!
//! Fence requests use the same queue as appends. So when a fence is answered, every earlier append
//! is either committed and visible, or will never be committed.

use super::EmbeddedFault;
use super::mark::{Edge, Mark, ends};
use super::reader::Shared;
use super::store::{self, BatchRow, WritableLog};
use crate::environment::System;
use crate::log::{AppendError, Committed, LANES, LogFault, MAX_BATCH_BYTES, MAX_BATCH_RECORDS};
use crate::{Environment, Offset, Partition};
use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, ffi};
use std::fs::File;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// The most requests that may wait; a lane has at most one in flight.
const QUEUE: usize = 1_024;

/// The most requests in one transaction.
const ROUND: usize = 256;

/// The largest size of a batch's frames, in bytes. It is generous because a caller only estimates
/// the size of its batch.
const MAX_BYTES: usize = 2 * MAX_BATCH_BYTES;

/// A batch to append.
pub(super) struct Append {
    pub partition: Partition,
    pub lane: usize,
    pub epoch: u64,
    pub frames: Bytes,
    pub records: usize,
    pub checksum: crc32fast::Hasher,
    pub answer: oneshot::Sender<Result<Committed, AppendError>>,
}

pub(super) enum Request {
    Append(Append),
    Fence { partition: Partition, lane: usize, answer: oneshot::Sender<Result<u64, LogFault>> },
    Close(oneshot::Sender<()>),
}

/// The queue to the thread. Dropping it waits until the thread has finished the waiting requests.
pub(super) struct Queue {
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl Queue {
    pub async fn append(&self, append: Append) -> Result<(), LogFault> {
        self.send(Request::Append(append)).await
    }

    pub async fn fence(&self, partition: Partition, lane: usize) -> Result<u64, LogFault> {
        let (answer, answered) = oneshot::channel();
        self.send(Request::Fence { partition, lane, answer }).await?;
        answered.await.unwrap_or_else(|_| Err(EmbeddedFault::Closed.into()))
    }

    pub async fn close(&self) {
        let (answer, answered) = oneshot::channel();
        // An error means that the queue is closed already.
        if self.send(Request::Close(answer)).await.is_ok() {
            let _ = answered.await;
        }
    }

    async fn send(&self, request: Request) -> Result<(), LogFault> {
        let closed = || EmbeddedFault::Closed.into();
        let requests = self.requests.as_ref().ok_or_else(closed)?;
        requests.send(request).await.map_err(|_| closed())
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // The thread has answered all requests. If it panicked, their callers get "unknown".
            let _ = thread.join();
        }
    }
}

/// The state of the thread.
pub(super) struct Committer {
    connection: Connection,
    /// Keeps the lock file locked as long as the thread may write.
    lock: File,
    mark: Mark,
    edges: Vec<Edge>,
    epochs: Vec<[u64; LANES]>,
    shared: Arc<Shared>,
    poisoned: bool,
    pace: Pace,
    clock: System,
}

/// Decides how long to wait for more requests before a commit, from the timing of recent rounds.
///
/// A commit costs one disk sync, no matter how many batches it contains. Writers answered in one
/// round send their next batch shortly after the next round has begun. Without a wait they would
/// split into two groups, each waiting for the other's sync. A short wait brings them together. A
/// single writer does not wait.
struct Pace {
    rounds: u64,
    /// The round in which each partition was last written. A partition has one append in flight.
    written: Vec<u64>,
    /// How long the last commit took.
    commit: Duration,
}

impl Pace {
    const MOST: Duration = Duration::from_millis(1);
    const STEP: Duration = Duration::from_micros(50);

    fn new(partitions: usize) -> Self {
        // At round 2, round 0 counts as long ago: no partition has written recently.
        Self { rounds: 2, written: vec![0; partitions], commit: Duration::ZERO }
    }

    fn note(&mut self, staged: &[Staged], commit: Duration) {
        self.rounds += 1;
        for Staged { partition, .. } in staged {
            self.written[partition.0 as usize] = self.rounds;
        }
        self.commit = commit;
    }

    /// Waits for requests of the partitions written in the last two rounds, for at most a quarter
    /// of the duration of a commit.
    fn gather(&self, queue: &mut mpsc::Receiver<Request>, round: &mut Vec<Request>) {
        let company = self.written.iter().filter(|&&round| round + 1 >= self.rounds).count();
        let mut left = (self.commit / 4).min(Self::MOST);
        while round.len() < company {
            match queue.try_recv() {
                Ok(request) => round.push(request),
                Err(mpsc::error::TryRecvError::Empty) if left < Self::STEP => return,
                Err(mpsc::error::TryRecvError::Empty) => {
                    thread::sleep(Self::STEP);
                    left = left.saturating_sub(Self::STEP);
                }
                Err(mpsc::error::TryRecvError::Disconnected) => return,
            }
        }
    }
}

/// A batch in the current transaction.
struct Staged {
    partition: Partition,
    row: BatchRow,
    records: usize,
    answer: oneshot::Sender<Result<Committed, AppendError>>,
}

/// How a transaction failed.
enum Failure {
    /// It failed before the commit: the file contains nothing of it.
    RolledBack(rusqlite::Error),
    /// The commit itself failed.
    InDoubt(rusqlite::Error),
}

impl Committer {
    pub fn new(opened: WritableLog, shared: Arc<Shared>) -> Self {
        let WritableLog { connection, lock, mark, edges } = opened;
        let epochs = vec![[0; LANES]; edges.len()];
        let (pace, clock) = (Pace::new(edges.len()), System::new());
        Self { connection, lock, mark, edges, epochs, shared, poisoned: false, pace, clock }
    }

    pub fn start(self) -> std::io::Result<Queue> {
        let (requests, queue) = mpsc::channel(QUEUE);
        let thread =
            thread::Builder::new().name("log-commit".to_owned()).spawn(move || self.run(queue))?;
        Ok(Queue { requests: Some(requests), thread: Some(thread) })
    }

    fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut round = Vec::new();
        let mut closed = None;
        while closed.is_none() && queue.blocking_recv_many(&mut round, ROUND) > 0 {
            self.pace.gather(&mut queue, &mut round);
            closed = self.round(&mut round);
        }
        // Later requests fail because the queue is closed. The file is closed and unlocked before
        // the answer.
        drop(queue);
        self.mark.sync();
        drop((self.connection, self.lock));
        if let Some(answer) = closed {
            let _ = answer.send(());
        }
    }

    /// Commits all appends of a round in one transaction. Returns the channel to answer on if the
    /// round contained a request to close.
    fn round(&mut self, round: &mut Vec<Request>) -> Option<oneshot::Sender<()>> {
        let (mut appends, mut fences, mut closed) = (Vec::new(), Vec::new(), None);
        for request in round.drain(..) {
            match request {
                // After a close request, appends are refused. If they were only dropped, their
                // outcome would be unknown to the caller.
                Request::Append(append) if closed.is_some() => {
                    refuse(append.answer, EmbeddedFault::Closed);
                }
                Request::Append(append) => match self.check(&append) {
                    Ok(()) => appends.push(append),
                    Err(fault) => refuse(append.answer, fault),
                },
                Request::Fence { partition, lane, answer } => {
                    fences.push((self.fence(partition, lane), answer));
                }
                Request::Close(answer) => closed = Some(answer),
            }
        }
        if !appends.is_empty() {
            self.commit(appends);
        }
        for (epoch, answer) in fences {
            // The caller may have gone away.
            let _ = answer.send(if self.poisoned {
                Err(EmbeddedFault::Poisoned.into())
            } else {
                epoch.map_err(Into::into)
            });
        }
        closed
    }

    fn check(&self, append: &Append) -> Result<(), EmbeddedFault> {
        let &Append { partition, lane, epoch, records, ref frames, .. } = append;
        if self.poisoned {
            return Err(EmbeddedFault::Poisoned);
        }
        if !(1..=MAX_BATCH_RECORDS).contains(&records) || frames.len() > MAX_BYTES {
            return Err(EmbeddedFault::Size { records, bytes: frames.len() });
        }
        if self.epochs[partition.0 as usize][lane] != epoch {
            return Err(EmbeddedFault::Fenced);
        }
        Ok(())
    }

    fn fence(&mut self, partition: Partition, lane: usize) -> Result<u64, EmbeddedFault> {
        let lanes = self.epochs.get_mut(partition.0 as usize);
        let epoch = lanes
            .and_then(|lanes| lanes.get_mut(lane))
            .ok_or(EmbeddedFault::NoSuchLane(partition, lane))?;
        *epoch += 1;
        Ok(*epoch)
    }

    fn commit(&mut self, appends: Vec<Append>) {
        let mut edges = self.edges.clone();
        let mut staged = Vec::with_capacity(appends.len());
        for Append { partition, frames, records, checksum, answer, .. } in appends {
            let edge = &mut edges[partition.0 as usize];
            let place = (edge.end, behind(edge.end, records));
            let row = BatchRow::new(partition, place, frames, checksum);
            *edge = Edge::behind(&row);
            staged.push(Staged { partition, row, records, answer });
        }
        let began = self.clock.monotonic();
        let outcome = self.transact(&staged, &edges);
        self.pace.note(&staged, self.clock.monotonic().saturating_sub(began));
        match outcome {
            Ok(()) => {
                self.edges = edges;
                self.mark.note(&self.edges);
                self.show(staged);
            }
            Err(failure) => self.fail(staged, failure),
        }
    }

    fn transact(&self, staged: &[Staged], edges: &[Edge]) -> Result<(), Failure> {
        let write = || -> rusqlite::Result<()> {
            self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            for Staged { partition, row, .. } in staged {
                store::insert(&self.connection, *partition, row)?;
            }
            store::write_ends(&self.connection, &ends(edges))
        };
        write().map_err(Failure::RolledBack)?;
        let commit = || self.connection.prepare_cached("COMMIT")?.execute([]);
        commit().map(drop).map_err(Failure::InDoubt)
    }

    /// Makes the durable batches visible to readers, then answers the callers, so that a caller can
    /// read its own batch.
    fn show(&self, staged: Vec<Staged>) {
        let mut answers = Vec::with_capacity(staged.len());
        for Staged { partition, row, records, answer } in staged {
            let offsets = (row.first.0..).take(records).map(Offset).collect();
            self.shared.tails[partition.0 as usize].push(row);
            answers.push((answer, offsets));
        }
        for (answer, offsets) in answers {
            let _ = answer.send(Ok(Committed { offsets, suspect: false }));
        }
    }

    /// Whether the log can continue after a failed transaction. It can if nothing of the
    /// transaction is visible and everything before it is durable, both for certain. A failed
    /// commit stays in doubt until the next commit has overwritten it in the write-ahead log. So
    /// its callers are told "unknown" and find out when they read up to their next claim.
    fn recovers(&self, in_doubt: bool, error: &rusqlite::Error) -> bool {
        if in_doubt && !is_before_sync(error) {
            return false;
        }
        let is_over =
            self.connection.is_autocommit() || self.connection.execute_batch("ROLLBACK").is_ok();
        is_over
            && (!in_doubt
                || store::read_ends(&self.connection).is_ok_and(|seen| seen == ends(&self.edges)))
    }

    fn fail(&mut self, staged: Vec<Staged>, failure: Failure) {
        let in_doubt = matches!(failure, Failure::InDoubt(_));
        let (Failure::RolledBack(error) | Failure::InDoubt(error)) = failure;
        tracing::error!(error = &error as &dyn std::error::Error, in_doubt, "a commit failed");
        self.poisoned = !self.recovers(in_doubt, &error);
        if self.poisoned {
            self.shared.is_lost.send_replace(true);
        }
        let error = Arc::new(error);
        for Staged { answer, .. } in staged {
            if in_doubt {
                let source = EmbeddedFault::CommitFailed(Arc::clone(&error)).into();
                let _ = answer.send(Err(AppendError::Unknown(source)));
            } else {
                refuse(answer, EmbeddedFault::RolledBack(Arc::clone(&error)));
            }
        }
    }
}

/// Whether the error occurred before the sync, so that the system cannot have lost written pages. A
/// full disk is reported before the sync. A failed sync is not safe: the system may have dropped
/// the pages that it could not write, and report success for the next sync.
fn is_before_sync(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy) => true,
        Some(ErrorCode::SystemIoFailure) => code == Some(ffi::SQLITE_IOERR_WRITE),
        _ => false,
    }
}

fn refuse(answer: oneshot::Sender<Result<Committed, AppendError>>, fault: EmbeddedFault) {
    // The caller may have gone away.
    let _ = answer.send(Err(AppendError::NotApplied(fault.into())));
}

/// The offset of the next batch: after the `records` records that begin at `first`, and a gap.
///
/// The gaps are deliberate and vary in width. Kafka leaves gaps too, so code that calculates with
/// offsets must fail here first.
fn behind(first: Offset, records: usize) -> Offset {
    let gap = 1 + records % 3;
    Offset(first.0.saturating_add_unsigned((records + gap) as u64))
}
