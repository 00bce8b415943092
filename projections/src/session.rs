//! From the checkpoints on: what is read is gathered, and written as soon as the database is free.

use crate::{
    backoff::Backoff,
    checkpoint::{Checkpoint, Move},
    facts::{Decoded, Fact, Undecodable},
    full_text,
    lease::Share,
    parked::Held,
    source::Read,
    transaction::{self, Care, Failed, Work, plan},
    version::Version,
    worker::{Feed, Interrupted},
};
use events::{Partition, StreamId, log::Cursor, log::ReadError};
use rustc_hash::FxHashSet;
use std::{collections::BTreeMap, error::Error, mem, sync::Arc, time::Duration};

/// How long a checkpoint stays behind a gap without events, in the hope of events to move it with.
const FLUSH_AFTER: Duration = Duration::from_millis(100);

/// A partition of a version, and where it stands.
pub(crate) struct Lane {
    pub version: Arc<Version>,
    pub checkpoint: Checkpoint,
    /// Its streams that are parked.
    pub parked: Arc<FxHashSet<StreamId>>,
}

/// Where each partition is to be read from: for the version that is furthest behind.
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
pub(crate) struct Gathered {
    pub facts: Vec<Fact>,
    pub undecodable: Vec<Undecodable>,
    pub cursor: Cursor,
    at_end: bool,
    /// What the partition cannot get past.
    damage: Option<ReadError>,
}

/// What a feed has read and written since it last looked at the checkpoints.
pub(crate) struct Session<'a> {
    feed: &'a Feed,
    lanes: BTreeMap<Share, Lane>,
    gathered: BTreeMap<Partition, Gathered>,
    /// When the first of it came, on the monotonic clock.
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
                    let gathered = Gathered { facts, undecodable, cursor, at_end, damage };
                    self.gathered.insert(partition, gathered);
                }
                self.tell_applied(partition);
            }
            Read::Damaged(partition, error) => {
                let lanes = self.lanes.iter().filter(|((_, at), _)| *at == partition);
                let reached = lanes.map(|(_, lane)| lane.checkpoint.cursor);
                let cursor = reached.min_by_key(|cursor| cursor.offset).unwrap_or(Cursor::START);
                let gathered = self.gathered.entry(partition).or_insert_with(|| Gathered {
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
        let events = |it: &Gathered| it.facts.len() + it.undecodable.len();
        self.gathered.values().map(events).sum()
    }

    pub fn must_stop(&self) -> bool {
        self.gathered.values().any(|gathered| gathered.damage.is_some())
    }

    /// When the checkpoints are to follow what was read; `None` if they are there.
    pub fn flush_in(&self) -> Option<Duration> {
        let waited = self.feed.context.environment.monotonic().saturating_sub(self.gathered_since);
        (!self.gathered.is_empty()).then(|| FLUSH_AFTER.saturating_sub(waited))
    }

    /// Lets those who wait for the log's end see that nothing but gaps came; the checkpoints follow.
    pub fn publish_frontier(&mut self) {
        for ((id, partition), lane) in &self.lanes {
            let Some(gathered) = self.gathered.get(partition) else { continue };
            if lane.checkpoint.serving {
                let frontier = gathered.cursor.offset;
                self.feed.context.progress.push(id.model, *partition, frontier);
            }
        }
    }

    /// Writes all that is gathered, however long the database takes to come back.
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
                    tracing::warn!(problem, "rows are refused, looking for the event");
                    care = Care::Careful;
                }
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
        self.halt_damaged(&gathered).await
    }

    /// That nothing waits, where the end was told and nothing came before it.
    fn tell_applied(&self, partition: Partition) {
        let gathered = self.gathered.get(&partition);
        if gathered.is_some_and(|it| it.at_end && it.facts.is_empty()) {
            for share in self.lanes.keys().filter(|(_, at)| *at == partition) {
                self.feed.context.live.set(*share, None);
            }
        }
    }

    /// What waits to be written, for as long as that takes.
    fn tell_waiting(&self, gathered: &BTreeMap<Partition, Gathered>) {
        for (share, _) in self.lanes.iter().filter(|(_, lane)| lane.checkpoint.serving) {
            if let Some(first) = gathered.get(&share.1).and_then(|it| it.facts.first()) {
                self.feed.context.live.set(*share, Some(first.record.time));
            }
        }
    }

    /// Stops the partitions where the log is damaged; all before that is applied.
    async fn halt_damaged(
        &mut self,
        gathered: &BTreeMap<Partition, Gathered>,
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

    /// One transaction; afterwards the lanes stand where it took them.
    async fn commit(
        &mut self,
        work: &[Work<'_>],
        gathered: &BTreeMap<Partition, Gathered>,
        care: Care,
    ) -> Result<(), Failed> {
        let done = transaction::commit(&self.feed.context, work, care).await?;
        done.parked.into_iter().for_each(|held| self.parked(held));
        for step in work.iter().flat_map(|work| &work.moves) {
            self.moved(step, done.serving.get(&step.share) == Some(&true), gathered);
        }
        Ok(())
    }

    /// A stream is parked from now on.
    fn parked(&mut self, held: Held) {
        let Held { share, stream, reason, version, first, .. } = held;
        let reason = reason.unwrap_or_default();
        let (id, partition) = share;
        let at = format_args!("{partition}:{first}");
        tracing::error!(version = %id, %stream, stream_version = version, %at, reason, "parked");
        if let Some(lane) = self.lanes.get_mut(&share) {
            Arc::make_mut(&mut lane.parked).insert(stream);
            lane.checkpoint.parked += 1;
        }
    }

    fn moved(&mut self, step: &Move, serving: bool, gathered: &BTreeMap<Partition, Gathered>) {
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
