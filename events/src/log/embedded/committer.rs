//! The one thread that writes: takes all that waits, commits it in one durable transaction, answers
//! everybody.
//!
//! Fencing goes through the same queue as the appends, so its answer means that every earlier
//! append has been committed and shown, or never will be.

use super::EmbeddedFault;
use super::mark::{Edge, Mark, ends};
use super::reader::Shared;
use super::store::{self, Opened, Row};
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

/// Requests that may wait; a lane has one under way.
const QUEUE: usize = 1_024;

/// Requests in one transaction.
const ROUND: usize = 256;

/// What the caller estimates of a batch and what its frames take are not the same.
const MAX_BYTES: usize = 2 * MAX_BATCH_BYTES;

/// A batch to be appended.
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

/// The way to the thread. Dropping it lets the thread finish what waits, and waits for that.
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
        // Closed before: nothing to wait for.
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
            // It has answered everybody, or broken off and so answered "unknown".
            let _ = thread.join();
        }
    }
}

/// The thread's own state.
pub(super) struct Committer {
    connection: Connection,
    /// Held as long as the thread may write.
    lock: File,
    mark: Mark,
    edges: Vec<Edge>,
    epochs: Vec<[u64; LANES]>,
    shared: Arc<Shared>,
    poisoned: bool,
    pace: Pace,
    clock: System,
}

/// What the last rounds were like: how long to wait for company before a commit.
///
/// A commit costs a sync of the disk, however much is in it. Writers that the last round answered come back a moment after
/// the next one has begun, and so would fall into two groups that wait for each other's syncs. A short wait brings them
/// together; with a single writer there is none.
struct Pace {
    rounds: u64,
    /// The round each partition was last written in: it has one append under way.
    written: Vec<u64>,
    /// How long the last commit took.
    commit: Duration,
}

impl Pace {
    const MOST: Duration = Duration::from_millis(1);
    const STEP: Duration = Duration::from_micros(50);

    fn new(partitions: usize) -> Self {
        // Nobody has written yet.
        Self { rounds: 2, written: vec![0; partitions], commit: Duration::ZERO }
    }

    fn note(&mut self, staged: &[Staged], commit: Duration) {
        self.rounds += 1;
        for Staged { partition, .. } in staged {
            self.written[partition.0 as usize] = self.rounds;
        }
        self.commit = commit;
    }

    /// Waits for those who wrote in the last two rounds, at most a quarter of what a commit takes.
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

/// A batch that is in the open transaction.
struct Staged {
    partition: Partition,
    row: Row,
    records: usize,
    answer: oneshot::Sender<Result<Committed, AppendError>>,
}

/// How a transaction ended badly.
enum Failure {
    /// Before the commit: nothing of it is in the file.
    RolledBack(rusqlite::Error),
    /// At the commit.
    InDoubt(rusqlite::Error),
}

impl Committer {
    pub fn new(opened: Opened, shared: Arc<Shared>) -> Self {
        let Opened { connection, lock, mark, edges } = opened;
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
        // What comes now finds the queue closed; the file is closed and unlocked before the answer.
        drop(queue);
        self.mark.sync();
        drop((self.connection, self.lock));
        if let Some(answer) = closed {
            let _ = answer.send(());
        }
    }

    /// One transaction with all the appends of a round. Gives whom to tell when the log is to be
    /// closed.
    fn round(&mut self, round: &mut Vec<Request>) -> Option<oneshot::Sender<()>> {
        let (mut appends, mut fences, mut closed) = (Vec::new(), Vec::new(), None);
        for request in round.drain(..) {
            match request {
                // Behind a close nothing is taken any more: dropping an append would leave it in
                // doubt.
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
            // Whoever asked may be gone.
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
            let row = Row::new(partition, place, frames, checksum);
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

    /// Shows what is durable to the readers, then answers: whoever is answered can read it.
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

    /// Whether the log can go on after a failed transaction: when it is certain that nothing of it is to be seen, and that
    /// everything before it is durable. A commit that failed stays in doubt until the next one has taken its place in the
    /// write-ahead log, so whoever asks is told that it is unknown, and reads behind their next claim.
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

/// Whether nothing was written that the system may have lost: a full disk says so before, a failed sync too late. It may
/// have dropped the pages it could not write, and call the next sync a success.
fn is_before_sync(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy) => true,
        Some(ErrorCode::SystemIoFailure) => code == Some(ffi::SQLITE_IOERR_WRITE),
        _ => false,
    }
}

fn refuse(answer: oneshot::Sender<Result<Committed, AppendError>>, fault: EmbeddedFault) {
    // Whoever asked may be gone.
    let _ = answer.send(Err(AppendError::NotApplied(fault.into())));
}

/// Where the next batch begins, behind one of `records` records at `first` and a gap.
///
/// The gaps are there on purpose, and of different widths: Kafka leaves them too, and who counts on
/// an offset is to find out here.
fn behind(first: Offset, records: usize) -> Offset {
    let gap = 1 + records % 3;
    Offset(first.0.saturating_add_unsigned((records + gap) as u64))
}
