//! Events to rows: a feed reads some partitions and writes their rows in some versions, one
//! transaction at a time.
//!
//! The set of shares of a feed never changes: if it must, the projector ends the feed and begins
//! another. If a feed finds that another writer moved a checkpoint, or that a partition stopped, it
//! starts again from the checkpoints.

use crate::{
    ReadModel,
    backoff::Backoff,
    checkpoint::{self, Checkpoint, Fenced},
    feeds::Live,
    lease::Share,
    parked,
    planted::Planted,
    progress::Progress,
    session::{Lane, Session, starts},
    source,
    transaction::Failed,
    version::Version,
};
use events::{Environment, Offset, Partition, log::EventLog, log::ReadError};
use sqlx::PgPool;
use std::{
    collections::BTreeMap,
    error::Error,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    sync::mpsc::{self, Receiver},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// Chunks that wait for the database, in addition to the one that each reader holds.
const CHUNKS_WAITING: usize = 4;

/// What all feeds share.
#[derive(Clone)]
pub(crate) struct Context {
    pub pool: PgPool,
    pub log: Arc<dyn EventLog>,
    pub environment: Arc<dyn Environment>,
    pub progress: Progress,
    pub planted: Planted,
    /// The lag of the serving versions. Rebuilds pause while it is high.
    pub live: Live,
}

/// The versions to feed in each partition.
pub(crate) type Shares = BTreeMap<Partition, Vec<Arc<Version>>>;

/// How far a feed has committed each of its shares.
#[derive(Clone, Default)]
pub(crate) struct Reached(Arc<Mutex<BTreeMap<Share, Offset>>>);

impl Reached {
    pub fn set(&self, share: Share, to: Offset) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(share, to);
    }

    /// A copy of the current values.
    pub fn all(&self) -> BTreeMap<Share, Offset> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Feeds some partitions of some versions.
pub(crate) struct Feed {
    pub context: Arc<Context>,
    pub shares: Shares,
    /// A transaction takes no more batches once it has this many events.
    pub max_events: usize,
    pub reached: Reached,
    pub stop: CancellationToken,
}

/// Why a feed starts again from the checkpoints.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Interrupted {
    #[error("another writer moved a checkpoint first")]
    Fenced(#[from] Fenced),
    #[error("a partition stopped")]
    Stopped,
    #[error("the database does not answer")]
    Database(#[from] sqlx::Error),
    #[error("the log cannot be read")]
    Log(#[from] ReadError),
}

impl From<Failed> for Interrupted {
    /// What can be retried is retried from the checkpoint.
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Fenced(fenced) => fenced.into(),
            Failed::Database(error) => error.into(),
            Failed::Refused(_) | Failed::TooMany(..) => Self::Stopped,
        }
    }
}

impl Feed {
    /// Feeds until told to stop. An open transaction is finished.
    pub async fn run(self) {
        self.feed().await;
        // The next feed of these shares sets these values again.
        for (&partition, versions) in &self.shares {
            for version in versions {
                self.context.live.set((version.id, partition), None);
            }
        }
    }

    async fn feed(&self) {
        let mut backoff = Backoff::default();
        while !self.stop.is_cancelled() {
            let Err(interrupted) = self.session(&mut backoff).await else { return };
            match &interrupted {
                Interrupted::Stopped => continue,
                Interrupted::Fenced(_) => {
                    metrics::counter!("projection_fenced_total").increment(1);
                    tracing::info!("another writer moved a checkpoint, the feed starts again");
                }
                error => tracing::warn!(
                    error = error as &dyn Error,
                    "a feed starts again from its checkpoints"
                ),
            }
            tokio::select! {
                () = backoff.rest(&*self.context.environment) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    /// Feeds from the checkpoints on until told to stop.
    async fn session(&self, backoff: &mut Backoff) -> Result<(), Interrupted> {
        let lanes = self.open_lanes().await?;
        let (into, mut reads) = mpsc::channel(CHUNKS_WAITING);
        // Dropping it ends the readers with the session.
        let mut readers = JoinSet::new();
        for (partition, from) in starts(&lanes) {
            let (log, environment) = (&self.context.log, &self.context.environment);
            readers.spawn(source::read(
                Arc::clone(log),
                Arc::clone(environment),
                partition,
                from,
                into.clone(),
            ));
        }
        drop(into);
        self.pump(Session::new(self, lanes), &mut reads, backoff).await
    }

    /// Takes what the readers send and writes it, until told to stop.
    async fn pump(
        &self,
        mut session: Session<'_>,
        reads: &mut Receiver<source::Read>,
        backoff: &mut Backoff,
    ) -> Result<(), Interrupted> {
        loop {
            let flush = session.flush_in();
            let flush_due = self.context.environment.sleep(flush.unwrap_or_default());
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                read = reads.recv() => match read {
                    Some(read) => session.take(read),
                    // Every partition has stopped.
                    None if session.is_empty() => {
                        self.stop.cancelled().await;
                        return Ok(());
                    }
                    None => {}
                },
                () = flush_due, if flush.is_some() => {
                    session.write(backoff).await?;
                    continue;
                }
            }
            while session.events() < self.max_events
                && let Ok(read) = reads.try_recv()
            {
                session.take(read);
            }
            if session.events() > 0 || session.must_stop() || reads.is_closed() {
                session.write(backoff).await?;
            } else {
                session.publish_frontier();
            }
        }
    }

    /// Reads the checkpoints of the shares, checks that they belong to this log, and leaves out the
    /// stopped ones.
    async fn open_lanes(&self) -> Result<BTreeMap<Share, Lane>, Interrupted> {
        let mut checkpoints = checkpoint::load(&self.context.pool).await?;
        checkpoints.retain(|(id, partition), _| {
            self.shares.get(partition).is_some_and(|fed| fed.iter().any(|it| it.id == *id))
        });
        let unstopped = checkpoints.iter().filter(|(_, checkpoint)| checkpoint.stopped.is_none());
        let places = unstopped.map(|((_, partition), checkpoint)| (*partition, checkpoint));
        let foreign = tokio::select! {
            foreign = source::foreign(&*self.context.log, places) => foreign?,
            () = self.stop.cancelled() => return Err(Interrupted::Stopped),
        };
        let mut parked = BTreeMap::new();
        if checkpoints.values().any(|checkpoint| checkpoint.parked > 0) {
            parked = parked::load(&self.context.pool).await?;
        }
        let mut lanes = BTreeMap::new();
        for (&partition, versions) in &self.shares {
            for version in versions {
                let share = (version.id, partition);
                let Some(checkpoint) = checkpoints.remove(&share) else { continue };
                self.reached.set(share, checkpoint.cursor.offset);
                if checkpoint.serving {
                    self.context.progress.set(version.id.model, partition, checkpoint.seen());
                }
                if checkpoint.stopped.is_some() {
                    continue;
                }
                if let Some(reason) = foreign.reason(partition, &checkpoint) {
                    self.halt(share, &checkpoint, reason).await?;
                    return Err(Interrupted::Stopped);
                }
                let parked = Arc::new(parked.remove(&share).unwrap_or_default());
                let lane = Lane { version: Arc::clone(version), checkpoint, parked };
                lanes.insert(share, lane);
            }
        }
        Ok(lanes)
    }

    /// Stops a partition of a version, visibly.
    pub async fn halt(
        &self,
        share: Share,
        checkpoint: &Checkpoint,
        reason: &str,
    ) -> Result<(), sqlx::Error> {
        self.context.live.set(share, None);
        halt(&self.context.pool, share, checkpoint.cursor.offset, reason).await
    }
}

/// Stops a partition of a version whose checkpoint is at the offset `at`, visibly.
pub(crate) async fn halt(
    pool: &PgPool,
    share: Share,
    at: Offset,
    reason: &str,
) -> Result<(), sqlx::Error> {
    let (id, partition) = share;
    tracing::error!(
        version = %id, %partition, %at, reason,
        "a read model has stopped in a partition"
    );
    checkpoint::stop(pool, share, at, reason).await?;
    stopped_gauge(id.model, partition).set(1.0);
    Ok(())
}

pub(crate) fn stopped_gauge(model: ReadModel, partition: Partition) -> metrics::Gauge {
    let (model, partition) = (model.as_str(), partition.to_string());
    metrics::gauge!("projection_stopped", "projection" => model, "partition" => partition)
}
