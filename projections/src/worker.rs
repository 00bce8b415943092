//! Events to rows: a feed reads some partitions and writes what they say into some versions, one transaction at a time.
//!
//! A feed never changes what it feeds: when that changes, the projector ends it and begins another. What it finds out of
//! place (another writer's checkpoint, a stopped partition) makes it begin anew from the checkpoints.

use crate::{
    ReadModel,
    checkpoint::{self, Checkpoint, Fenced, Last, Move},
    database,
    facts::{Decoded, Fact, Facts},
    lease::Share,
    progress::Progress,
    projection::ApplyError,
    source::{self, Read},
    version::{Version, VersionId},
};
use events::{DecodeError, Environment, Partition, log::Cursor, log::EventLog, log::ReadError};
use sqlx::PgPool;
use std::{collections::BTreeMap, error::Error, fmt::Write as _, mem, sync::Arc, time::Duration};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// Chunks that wait for the database, besides the one that each reader holds.
const CHUNKS_WAITING: usize = 4;

/// How long a checkpoint stays behind a gap without events, in the hope of events to move it with.
const FLUSH_AFTER: Duration = Duration::from_millis(100);

/// What all feeds share.
pub(crate) struct Context {
    pub pool: PgPool,
    pub log: Arc<dyn EventLog>,
    pub environment: Arc<dyn Environment>,
    pub progress: Progress,
}

/// What a feed feeds.
pub(crate) type Shares = BTreeMap<Partition, Vec<Arc<Version>>>;

/// Feeds some partitions of some versions.
pub(crate) struct Feed {
    pub context: Arc<Context>,
    pub shares: Shares,
    /// A transaction takes no more once it has so many events.
    pub max_events: usize,
    pub stop: CancellationToken,
}

/// Why a feed begins anew.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error("another writer was first")]
    Fenced(#[from] Fenced),
    #[error("a partition stopped")]
    Stopped,
    #[error("the database does not answer")]
    Database(#[from] sqlx::Error),
    #[error("the log cannot be read")]
    Log(#[from] ReadError),
}

impl Feed {
    /// Feeds until told to stop. A transaction under way is finished.
    pub async fn run(self) {
        let mut backoff = Backoff::default();
        while !self.stop.is_cancelled() {
            let Err(interrupted) = self.session(&mut backoff).await else { return };
            match &interrupted {
                Interrupted::Stopped => continue,
                Interrupted::Fenced(_) => {
                    metrics::counter!("projection_fenced_total").increment(1);
                    tracing::info!("another writer moved a checkpoint, reading it again");
                }
                error => tracing::warn!(error = error as &dyn Error, "a feed begins anew"),
            }
            tokio::select! {
                () = backoff.rest(&*self.context.environment) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    /// From the checkpoints on until told to stop.
    async fn session(&self, backoff: &mut Backoff) -> Result<(), Interrupted> {
        let lanes = self.open_lanes().await?;
        let (into, mut reads) = mpsc::channel(CHUNKS_WAITING);
        // Ends the readers with the session.
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
        let mut session = Session {
            feed: self,
            lanes,
            gathered: BTreeMap::new(),
            gathered_since: Duration::ZERO,
        };
        loop {
            let flush = session.flush_in();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                read = reads.recv() => match read {
                    Some(read) => session.take(read),
                    // Every partition has stopped.
                    None if session.gathered.is_empty() => {
                        self.stop.cancelled().await;
                        return Ok(());
                    }
                    None => {}
                },
                () = self.context.environment.sleep(flush.unwrap_or_default()), if flush.is_some() => {
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

    /// The checkpoints of what is to be fed and has not stopped, each found to be of this log.
    async fn open_lanes(&self) -> Result<BTreeMap<Share, Lane>, Interrupted> {
        let mut checkpoints = checkpoint::load(&self.context.pool).await?;
        let mut lanes = BTreeMap::new();
        for (&partition, versions) in &self.shares {
            for version in versions {
                let share = (version.id, partition);
                let Some(checkpoint) = checkpoints.remove(&share) else { continue };
                if checkpoint.serving {
                    self.context.progress.set(version.id.model, partition, checkpoint.seen());
                }
                if checkpoint.stopped.is_some() {
                    continue;
                }
                if let Some(last) = checkpoint.last
                    && !source::holds(&*self.context.log, partition, last).await?
                {
                    let reason = format!(
                        "another log behind this checkpoint: event {} is not at {partition}:{}",
                        last.event_id, last.offset
                    );
                    self.halt(share, &checkpoint, &reason).await?;
                    return Err(Interrupted::Stopped);
                }
                let lane = Lane { version: Arc::clone(version), checkpoint };
                lanes.insert(share, lane);
            }
        }
        Ok(lanes)
    }

    /// Stops a partition of a version, for all to see.
    async fn halt(
        &self,
        share: Share,
        checkpoint: &Checkpoint,
        reason: &str,
    ) -> Result<(), sqlx::Error> {
        let (id, partition) = share;
        tracing::error!(version = %id, %partition, at = %checkpoint.cursor.offset, reason, "a read model stops");
        checkpoint::stop(&self.context.pool, share, checkpoint.cursor.offset, reason).await?;
        stopped_gauge(id.model, partition).set(1.0);
        Ok(())
    }
}

/// A partition of a version, and where it stands.
struct Lane {
    version: Arc<Version>,
    checkpoint: Checkpoint,
}

/// Where each partition is to be read from: for the version that is furthest behind.
fn starts(lanes: &BTreeMap<Share, Lane>) -> BTreeMap<Partition, Cursor> {
    let mut starts = BTreeMap::new();
    for ((_, partition), lane) in lanes {
        let cursor = lane.checkpoint.cursor;
        let start = starts.entry(*partition).or_insert(cursor);
        if cursor.offset < start.offset {
            *start = cursor;
        }
    }
    starts
}

/// What was read of a partition and is not written yet.
struct Gathered {
    facts: Vec<Fact>,
    cursor: Cursor,
    at_end: bool,
    poison: Option<Poison>,
}

/// What a partition cannot get past.
#[derive(Debug, thiserror::Error)]
enum Poison {
    #[error(transparent)]
    Unknown(#[from] DecodeError),
    #[error(transparent)]
    Damaged(#[from] ReadError),
}

struct Session<'a> {
    feed: &'a Feed,
    lanes: BTreeMap<Share, Lane>,
    gathered: BTreeMap<Partition, Gathered>,
    /// When the first of it came, on the monotonic clock.
    gathered_since: Duration,
}

/// What a transaction does to one version.
struct Work<'a> {
    version: Arc<Version>,
    moves: Vec<Move>,
    facts: Facts<'a>,
}

/// Why a transaction did not commit.
enum Failed {
    Fenced(Fenced),
    /// Trying again may help.
    Database(sqlx::Error),
    /// Trying again does not help: a stream of this version is not what it must be.
    Stream(Share, String),
    /// Trying again does not help: the database refuses the rows.
    Rows(sqlx::Error),
}

impl Session<'_> {
    fn take(&mut self, read: Read) {
        if self.gathered.is_empty() {
            self.gathered_since = self.feed.context.environment.monotonic();
        }
        match read {
            Read::Batches(partition, Decoded { facts, cursor, at_end, poison }) => {
                let poison = poison.map(Poison::from);
                match self.gathered.get_mut(&partition) {
                    Some(gathered) => {
                        gathered.facts.extend(facts);
                        gathered.cursor = cursor;
                        gathered.at_end = at_end;
                        gathered.poison = poison;
                    }
                    None => {
                        self.gathered.insert(partition, Gathered { facts, cursor, at_end, poison });
                    }
                }
            }
            Read::Damaged(partition, error) => {
                let poison = Some(Poison::from(error));
                let lanes = self.lanes.iter().filter(|((_, at), _)| *at == partition);
                let reached = lanes.map(|(_, lane)| lane.checkpoint.cursor);
                let cursor = reached.min_by_key(|cursor| cursor.offset).unwrap_or(Cursor::START);
                let gathered = self.gathered.entry(partition).or_insert_with(|| Gathered {
                    facts: Vec::new(),
                    cursor,
                    at_end: false,
                    poison: None,
                });
                gathered.poison = poison;
            }
        }
    }

    fn events(&self) -> usize {
        self.gathered.values().map(|gathered| gathered.facts.len()).sum()
    }

    fn must_stop(&self) -> bool {
        self.gathered.values().any(|gathered| gathered.poison.is_some())
    }

    /// When the checkpoints are to follow what was read; `None` if they are there.
    fn flush_in(&self) -> Option<Duration> {
        let waited = self.feed.context.environment.monotonic().saturating_sub(self.gathered_since);
        (!self.gathered.is_empty()).then(|| FLUSH_AFTER.saturating_sub(waited))
    }

    /// Lets those who wait for the log's end see that nothing but gaps came; the checkpoints follow.
    fn publish_frontier(&mut self) {
        for ((id, partition), lane) in &self.lanes {
            let Some(gathered) = self.gathered.get(partition) else { continue };
            let mut seen = lane.checkpoint.seen();
            if lane.checkpoint.serving && gathered.cursor.offset > seen.next {
                seen.next = gathered.cursor.offset;
                self.feed.context.progress.set(id.model, *partition, seen);
            }
        }
    }

    /// Writes all that is gathered, however long the database takes to come back.
    async fn write(&mut self, backoff: &mut Backoff) -> Result<(), Interrupted> {
        let gathered = mem::take(&mut self.gathered);
        loop {
            let work = plan(&self.lanes, &gathered, |_| true);
            match self.commit(&work, &gathered).await {
                Ok(()) => break,
                Err(Failed::Fenced(fenced)) => return Err(fenced.into()),
                Err(Failed::Stream(share, problem)) => return self.halt(share, &problem).await,
                Err(Failed::Rows(_)) => return self.write_apart(&gathered).await,
                Err(Failed::Database(error)) => {
                    tracing::warn!(error = &error as &dyn Error, "rows not written, trying again");
                    tokio::select! {
                        () = backoff.rest(&*self.feed.context.environment) => {}
                        // What is gathered will be read again.
                        () = self.feed.stop.cancelled() => return Ok(()),
                    }
                }
            }
        }
        backoff.reset();
        self.halt_poisoned(&gathered).await
    }

    /// Finds out which partition's rows the database refuses: each in a transaction of its own.
    async fn write_apart(
        &mut self,
        gathered: &BTreeMap<Partition, Gathered>,
    ) -> Result<(), Interrupted> {
        let shares: Vec<Share> = self.lanes.keys().copied().collect();
        for share in shares {
            let work = plan(&self.lanes, gathered, |at| at == share);
            match self.commit(&work, gathered).await {
                Ok(()) => {}
                Err(Failed::Fenced(fenced)) => return Err(fenced.into()),
                Err(Failed::Database(error)) => return Err(error.into()),
                Err(Failed::Stream(share, problem)) => return self.halt(share, &problem).await,
                Err(Failed::Rows(error)) => {
                    return self.halt(share, &full_text(&error)).await;
                }
            }
        }
        self.halt_poisoned(gathered).await
    }

    /// Stops the partitions that have something in them that cannot be passed; all before it is applied.
    async fn halt_poisoned(
        &mut self,
        gathered: &BTreeMap<Partition, Gathered>,
    ) -> Result<(), Interrupted> {
        let mut any = false;
        for (&partition, gathered) in gathered {
            let Some(poison) = &gathered.poison else { continue };
            let here = |share: &Share, lane: &Lane| {
                share.1 == partition && lane.checkpoint.cursor.offset <= gathered.cursor.offset
            };
            for (share, lane) in self.lanes.iter().filter(|(share, lane)| here(share, lane)) {
                self.feed.halt(*share, &lane.checkpoint, &full_text(poison)).await?;
                any = true;
            }
        }
        if any { Err(Interrupted::Stopped) } else { Ok(()) }
    }

    async fn halt(&self, share: Share, reason: &str) -> Result<(), Interrupted> {
        if let Some(lane) = self.lanes.get(&share) {
            self.feed.halt(share, &lane.checkpoint, reason).await?;
        }
        Err(Interrupted::Stopped)
    }

    /// One transaction: the checkpoints first, which fences it, then the rows of each version.
    async fn commit(
        &mut self,
        work: &[Work<'_>],
        gathered: &BTreeMap<Partition, Gathered>,
    ) -> Result<(), Failed> {
        let moves: Vec<Move> = work.iter().flat_map(|work| &work.moves).copied().collect();
        if moves.is_empty() {
            return Ok(());
        }
        let context = &self.feed.context;
        let begun = context.environment.monotonic();
        let mut tx = database::begin(&context.pool).await.map_err(Failed::Database)?;
        let moved = checkpoint::advance(&mut tx, &moves).await.map_err(Failed::Database)?;
        let serving = moved.map_err(Failed::Fenced)?;
        for work in work {
            let applied = work.version.writer.apply(&mut tx, &work.facts).await;
            applied.map_err(|error| failed(work.version.id, error))?;
        }
        tx.commit().await.map_err(Failed::Database)?;
        let took = context.environment.monotonic().saturating_sub(begun);
        metrics::histogram!("projection_transaction_seconds").record(took.as_secs_f64());
        for step in &moves {
            self.moved(step, serving.get(&step.share) == Some(&true), gathered);
        }
        Ok(())
    }

    fn moved(&mut self, step: &Move, serving: bool, gathered: &BTreeMap<Partition, Gathered>) {
        let (id, partition) = step.share;
        let Some(Lane { checkpoint, .. }) = self.lanes.get_mut(&step.share) else { return };
        checkpoint.cursor = step.to;
        checkpoint.last = step.last.or(checkpoint.last);
        checkpoint.events += step.events;
        checkpoint.serving = serving;
        let model = id.model.as_str();
        metrics::counter!("projection_events_total", "projection" => model)
            .increment(step.events.unsigned_abs());
        if !serving {
            return;
        }
        let context = &self.feed.context;
        context.progress.set(id.model, partition, checkpoint.seen());
        let at_end = gathered.get(&partition).is_some_and(|gathered| gathered.at_end);
        let last = checkpoint.last.filter(|_| !at_end);
        let lag = last.map_or(0, |last| (context.environment.now() - last.time).num_milliseconds());
        #[allow(clippy::cast_precision_loss, reason = "a gauge")]
        let seconds = lag.max(0) as f64 / 1000.0;
        metrics::gauge!("projection_lag_seconds", "projection" => model, "partition" => partition.to_string())
            .set(seconds);
    }
}

/// What is to be written, by version, of the lanes that `included` names.
fn plan<'a>(
    lanes: &BTreeMap<Share, Lane>,
    gathered: &'a BTreeMap<Partition, Gathered>,
    included: impl Fn(Share) -> bool,
) -> Vec<Work<'a>> {
    let mut plan: BTreeMap<VersionId, Work<'a>> = BTreeMap::new();
    for (&share, lane) in lanes {
        let (id, partition) = share;
        let Some(gathered) = gathered.get(&partition) else { continue };
        let at = lane.checkpoint.cursor.offset;
        if !included(share) || gathered.cursor.offset <= at {
            continue;
        }
        let work = plan.entry(id).or_insert_with(|| Work {
            version: Arc::clone(&lane.version),
            moves: Vec::new(),
            facts: Facts::default(),
        });
        let facts = work.facts.add(&gathered.facts, at);
        work.moves.push(Move {
            share,
            expected: at,
            to: gathered.cursor,
            last: facts.last().map(Last::of),
            events: i64::try_from(facts.len()).unwrap_or(i64::MAX),
        });
    }
    plan.into_values().collect()
}

fn failed(id: VersionId, error: ApplyError) -> Failed {
    match error {
        ApplyError::Stream { partition, stream, problem } => {
            Failed::Stream((id, partition), format!("{stream} {problem}"))
        }
        ApplyError::Database(error) if refuses_rows(&error) => Failed::Rows(error),
        ApplyError::Database(error) => Failed::Database(error),
    }
}

/// Whether the rows themselves are at fault: data the database cannot hold (SQLSTATE class 22), a broken constraint (23), a
/// row that is there no more, or one that does not read.
fn refuses_rows(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
        }
        sqlx::Error::RowNotFound | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Encode(_) => {
            true
        }
        _ => false,
    }
}

pub(crate) fn stopped_gauge(model: ReadModel, partition: Partition) -> metrics::Gauge {
    metrics::gauge!("projection_stopped", "projection" => model.as_str(), "partition" => partition.to_string())
}

/// An error with its causes.
fn full_text(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a string cannot fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

/// Growing rests between tries, without end.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    tries: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(20);
    const LONGEST: Duration = Duration::from_secs(3);

    /// Rests: twice as long as the last time, less up to a half by chance.
    pub async fn rest(&mut self, environment: &dyn Environment) {
        let longest = (Self::FIRST * (1 << self.tries.min(10))).min(Self::LONGEST);
        self.tries += 1;
        let half = longest / 2;
        let chance = environment.random() % u64::try_from(half.as_micros()).unwrap_or(1).max(1);
        environment.sleep(half + Duration::from_micros(chance)).await;
    }

    /// All went well.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}
