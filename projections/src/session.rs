//! A feed from its checkpoints on: gathers what is read, and writes it whenever the database is
//! free.

use crate::{
    backoff::Backoff,
    checkpoint::{Checkpoint, Move},
    facts::{Decoded, Fact, Undecodable},
    full_text,
    lease::Share,
    parked::KeptBack,
    source::Read,
    transaction::{self, Care, Failed, Work, plan},
    version::Version,
    worker::{Feed, Interrupted},
};
use events::{Partition, StreamId, log::Cursor, log::ReadError};
use rustc_hash::FxHashSet;
use std::{collections::BTreeMap, error::Error, mem, sync::Arc, time::Duration};

/// How long a checkpoint waits for events to move with before it moves past a gap alone.
const FLUSH_AFTER: Duration = Duration::from_millis(100);

/// A partition of a version, and how far it is.
pub(crate) struct Lane {
    pub version: Arc<Version>,
    pub checkpoint: Checkpoint,
    /// The streams that are parked.
    pub parked: Arc<FxHashSet<StreamId>>,
}

/// Where to begin to read each partition: at the version that is furthest behind.
pub(crate) fn starts(lanes: &BTreeMap<Share, Lane>) -> BTreeMap<Partition, Cursor> {
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
pub(crate) struct Unwritten {
    pub facts: Vec<Fact>,
    pub undecodable: Vec<Undecodable>,
    pub cursor: Cursor,
    at_end: bool,
    /// The damage behind which nothing can be read.
    damage: Option<ReadError>,
}

/// What a feed has read and written since it last read the checkpoints.
pub(crate) struct Session<'a> {
    feed: &'a Feed,
    lanes: BTreeMap<Share, Lane>,
    gathered: BTreeMap<Partition, Unwritten>,
    /// When the oldest unwritten event was read, on the monotonic clock.
    gathered_since: Duration,
}

impl<'a> Session<'a> {
    pub fn new(feed: &'a Feed, lanes: BTreeMap<Share, Lane>) -> Self {
        Self { feed, lanes, gathered: BTreeMap::new(), gathered_since: Duration::ZERO }
    }

    pub fn is_empty(&self) -> bool {
        self.gathered.is_empty()
    }

    pub fn take(&mut self, read: Read) {
        if self.gathered.is_empty() {
            self.gathered_since = self.feed.context.environment.monotonic();
        }
        match read {
            Read::Batches(partition, Decoded { facts, undecodable, cursor, at_end }) => {
                if let Some(gathered) = self.gathered.get_mut(&partition) {
                    gathered.facts.extend(facts);
                    gathered.undecodable.extend(undecodable);
                    gathered.cursor = cursor;
                    gathered.at_end = at_end;
                } else {
                    let damage = None;
                    let gathered = Unwritten { facts, undecodable, cursor, at_end, damage };
                    self.gathered.insert(partition, gathered);
                }
                self.tell_applied(partition);
            }
            Read::Damaged(partition, error) => {
                let lanes = self.lanes.iter().filter(|((_, at), _)| *at == partition);
                let reached = lanes.map(|(_, lane)| lane.checkpoint.cursor);
                let cursor = reached.min_by_key(|cursor| cursor.offset).unwrap_or(Cursor::START);
                let gathered = self.gathered.entry(partition).or_insert_with(|| Unwritten {
                    facts: Vec::new(),
                    undecodable: Vec::new(),
                    cursor,
                    at_end: false,
                    damage: None,
                });
                gathered.damage = Some(error);
            }
        }
    }

    pub fn events(&self) -> usize {
        let events = |it: &Unwritten| it.facts.len() + it.undecodable.len();
        self.gathered.values().map(events).sum()
    }

    pub fn must_stop(&self) -> bool {
        self.gathered.values().any(|gathered| gathered.damage.is_some())
    }

    /// When the checkpoints must move past what was read; `None` if they have.
    pub fn flush_in(&self) -> Option<Duration> {
        let waited = self.feed.context.environment.monotonic().saturating_sub(self.gathered_since);
        (!self.gathered.is_empty()).then(|| FLUSH_AFTER.saturating_sub(waited))
    }

    /// Shows callers that wait for the log's end how far was read if there were only gaps. The
    /// checkpoints follow later.
    pub fn publish_frontier(&mut self) {
        for ((id, partition), lane) in &self.lanes {
            let Some(gathered) = self.gathered.get(partition) else { continue };
            if lane.checkpoint.serving {
                let frontier = gathered.cursor.offset;
                self.feed.context.progress.push(id.model, *partition, frontier);
            }
        }
    }

    /// Writes everything gathered, and retries until the database answers.
    pub async fn write(&mut self, backoff: &mut Backoff) -> Result<(), Interrupted> {
        let gathered = mem::take(&mut self.gathered);
        self.tell_waiting(&gathered);
        let mut care = Care::Quick;
        loop {
            let work = plan(&self.lanes, &gathered);
            match self.commit(&work, &gathered, care).await {
                Ok(()) => break,
                Err(Failed::Fenced(fenced)) => return Err(fenced.into()),
                Err(Failed::TooMany(share, problem)) => return self.halt(share, &problem).await,
                Err(Failed::Refused(problem)) => {
                    tracing::warn!(problem, "rows are refused, searching for the event");
                    care = Care::Careful;
                }
                Err(Failed::Database(error)) => {
                    tracing::warn!(
                        error = &error as &dyn Error,
                        "the rows cannot be written, trying again"
                    );
                    tokio::select! {
                        () = backoff.rest(&*self.feed.context.environment) => {}
                        // What is gathered will be read again.
                        () = self.feed.stop.cancelled() => return Ok(()),
                    }
                }
            }
        }
        backoff.reset();
        self.halt_damaged(&gathered).await
    }

    /// Notes that no event waits, if the reader was at the end and has read none.
    fn tell_applied(&self, partition: Partition) {
        let gathered = self.gathered.get(&partition);
        if gathered.is_some_and(|it| it.at_end && it.facts.is_empty()) {
            for share in self.lanes.keys().filter(|(_, at)| *at == partition) {
                self.feed.context.live.set(*share, None);
            }
        }
    }

    /// Notes the oldest event that waits to be written.
    fn tell_waiting(&self, gathered: &BTreeMap<Partition, Unwritten>) {
        for (share, _) in self.lanes.iter().filter(|(_, lane)| lane.checkpoint.serving) {
            if let Some(first) = gathered.get(&share.1).and_then(|it| it.facts.first()) {
                self.feed.context.live.set(*share, Some(first.record.time));
            }
        }
    }

    /// Stops the partitions in which the log is damaged, after the events before the damage are
    /// applied.
    async fn halt_damaged(
        &mut self,
        gathered: &BTreeMap<Partition, Unwritten>,
    ) -> Result<(), Interrupted> {
        let mut any = false;
        for (&partition, gathered) in gathered {
            let Some(damage) = &gathered.damage else { continue };
            let here = |share: &Share, lane: &Lane| {
                share.1 == partition && lane.checkpoint.cursor.offset <= gathered.cursor.offset
            };
            for (share, lane) in self.lanes.iter().filter(|(share, lane)| here(share, lane)) {
                self.feed.halt(*share, &lane.checkpoint, &full_text(damage)).await?;
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

    /// Commits one transaction, and moves the lanes to where it moved the checkpoints.
    async fn commit(
        &mut self,
        work: &[Work<'_>],
        gathered: &BTreeMap<Partition, Unwritten>,
        care: Care,
    ) -> Result<(), Failed> {
        let done = transaction::commit(&self.feed.context, work, care).await?;
        done.parked.into_iter().for_each(|kept_back| self.parked(kept_back));
        for step in work.iter().flat_map(|work| &work.moves) {
            self.moved(step, done.serving.get(&step.share) == Some(&true), gathered);
        }
        Ok(())
    }

    /// Notes that a stream is parked from now on.
    fn parked(&mut self, kept_back: KeptBack) {
        let KeptBack { share, stream, reason, version, first, .. } = kept_back;
        let reason = reason.unwrap_or_default();
        let (id, partition) = share;
        let at = format_args!("{partition}:{first}");
        tracing::error!(
            version = %id, %stream, stream_version = version, %at, reason,
            "a stream is parked"
        );
        if let Some(lane) = self.lanes.get_mut(&share) {
            Arc::make_mut(&mut lane.parked).insert(stream);
            lane.checkpoint.parked += 1;
        }
    }

    fn moved(&mut self, step: &Move, serving: bool, gathered: &BTreeMap<Partition, Unwritten>) {
        let (id, partition) = step.share;
        let Some(Lane { checkpoint, .. }) = self.lanes.get_mut(&step.share) else { return };
        checkpoint.cursor = step.to;
        self.feed.reached.set(step.share, step.to.offset);
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
        context.live.set(step.share, last.map(|last| last.time));
        let lag = last.map_or(0, |last| (context.environment.now() - last.time).num_milliseconds());
        #[allow(clippy::cast_precision_loss, reason = "a gauge")]
        let seconds = lag.max(0) as f64 / 1000.0;
        let partition = partition.to_string();
        metrics::gauge!("projection_lag_seconds", "projection" => model, "partition" => partition)
            .set(seconds);
    }
}
