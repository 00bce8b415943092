//! Fills new versions that are far behind in bulk. Some partitions are filled at the same time;
//! each is read up to the end that it had at the start, folded in memory, and copied into tables
//! without indexes. Versions that wait for the same partition share one reader.
//!
//! As in a live feed, rows and checkpoint move in one transaction. What is gathered is written once
//! it exceeds a bound, however long the log is, so after a crash a partition is complete or
//! complete up to one of these writes. After the first write, rows that are needed again are found
//! by their key, whose index is made then.
//!
//! If a version meets an event that it cannot apply, it is filled up to that event. The ordinary
//! feed does the rest, and parks the event's stream.

use crate::{
    backoff::Backoff,
    checkpoint::{self, Move},
    full_text,
    lease::Share,
    parked::Refusal,
    rebuild::{
        filling::{self, Filling, Halt, Read},
        indexes::{self, Indexes},
    },
    source,
    transaction::{self, Failed},
    version::Version,
    worker::{Context, Interrupted, Reached, halt},
};
use events::{
    Offset, Partition,
    log::{BatchReader, Chunk, ReadError},
};
use std::{error::Error, sync::Arc, time::Duration};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

/// A rebuild pauses while a serving version is further behind than this.
const LIVE_LAG: Duration = Duration::from_millis(250);

/// Pause between two checks of that.
const REST: Duration = Duration::from_millis(20);

/// The longest pause at a time. After it, a rebuild goes on for one chunk, because serving versions
/// may be behind for another reason.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// A gentle rebuild pauses this many times as long as it works.
const GENTLE_RESTS: u32 = 2;

/// About how many bytes a gentle rebuild gathers before it writes.
const GENTLE_BYTES: usize = 4 << 20;

/// Fills one partition of some versions.
pub(crate) struct Bulk {
    pub context: Arc<Context>,
    /// Either all of them are gentle, or none.
    pub versions: Vec<Arc<Version>>,
    pub partition: Partition,
    /// What is gathered is written once it takes this many bytes.
    pub max_bytes: usize,
    /// How many partitions are filled at the same time.
    pub at_once: u32,
    pub turns: Arc<Semaphore>,
    pub reached: Reached,
    pub stop: CancellationToken,
    /// Signalled when no other partition is being filled.
    pub done: Arc<Notify>,
}

impl Bulk {
    /// Waits for its turn, and fills the partition as far as possible.
    pub async fn run(self) {
        // A gentle fill runs alone.
        let turns = if self.gentle() { self.at_once } else { 1 };
        let turn = tokio::select! {
            turn = self.turns.acquire_many(turns) => turn,
            () = self.stop.cancelled() => return,
        };
        let Ok(turn) = turn else { return };
        let mut backoff = Backoff::default();
        while !self.stop.is_cancelled() {
            match self.fill(&mut backoff).await {
                Ok(()) | Err(Interrupted::Stopped) => break,
                Err(interrupted) => {
                    let (partition, error) = (self.partition, &interrupted as &dyn Error);
                    tracing::warn!(
                        %partition, error,
                        "a partition is filled again from its checkpoint"
                    );
                }
            }
            tokio::select! {
                () = backoff.rest(&*self.context.environment) => {}
                () = self.stop.cancelled() => {}
            }
        }
        // Marks this fill as over before the projector is woken: the task itself ends a moment
        // later.
        self.stop.cancel();
        drop(turn);
        // Wake the projector only after the last fill: indexes are made once all partitions are
        // filled.
        if self.turns.available_permits() == self.at_once as usize {
            self.done.notify_one();
        }
    }

    fn gentle(&self) -> bool {
        self.versions.iter().any(|version| version.manner.gentle)
    }

    fn share(&self, version: &Version) -> Share {
        (version.id, self.partition)
    }

    /// Fills from the checkpoints to the current end of the log.
    async fn fill(&self, backoff: &mut Backoff) -> Result<(), Interrupted> {
        let log = &*self.context.log;
        let mut fillings = self.begin().await?;
        let end = log.end(self.partition).await?;
        let cursors = fillings.iter().map(Filling::cursor);
        let Some(from) = cursors.min_by_key(|cursor| cursor.offset) else { return Ok(()) };
        let mut reader = BatchReader::open(log, self.partition, from).await?;
        let (mut reads, mut over) = (Vec::new(), from.offset >= end);
        let clock = || self.context.environment.monotonic();
        while !over && !fillings.is_empty() {
            let chunk = tokio::select! {
                chunk = reader.next() => chunk,
                () = self.stop.cancelled() => return Ok(()),
            };
            // Waiting for the log does not count as work.
            let begun = clock();
            match chunk {
                Ok(chunk) => {
                    // An incomplete batch may stay before the end for ever, so `at_end` ends the
                    // fill, too.
                    over = chunk.at_end || chunk.cursor.offset >= end;
                    self.take(&mut fillings, &chunk, &mut reads, backoff).await?;
                }
                Err(error @ ReadError::Damaged { .. }) => {
                    return self.halt(fillings, &full_text(&error), backoff).await;
                }
                Err(error) => return Err(error.into()),
            }
            self.write_some(&mut fillings, over, backoff).await?;
            self.give_way(clock().saturating_sub(begun)).await;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// The versions that can be filled, each from its checkpoint on.
    async fn begin(&self) -> Result<Vec<Filling>, Interrupted> {
        let Context { pool, log, .. } = &*self.context;
        let mut checkpoints = checkpoint::load(pool).await?;
        let mut begun = Vec::new();
        for version in &self.versions {
            let Some(checkpoint) = checkpoints.remove(&self.share(version)) else { continue };
            self.reached.set(self.share(version), checkpoint.cursor.offset);
            if checkpoint.stopped.is_none() && !checkpoint.bulk_over {
                begun.push((version, checkpoint));
            }
        }
        let places = begun.iter().map(|(_, checkpoint)| (self.partition, checkpoint));
        let foreign = source::foreign(&**log, places).await?;
        let mut fillings = Vec::new();
        for (version, checkpoint) in begun {
            match foreign.reason(self.partition, &checkpoint) {
                Some(reason) => {
                    let at = checkpoint.cursor.offset;
                    halt(pool, self.share(version), at, reason).await?;
                }
                None => fillings.push(Filling::new(Arc::clone(version), &checkpoint)),
            }
        }
        Ok(fillings)
    }

    /// Gathers what was read. This may block its thread, which is what background threads are for.
    async fn take(
        &self,
        fillings: &mut Vec<Filling>,
        chunk: &Chunk,
        reads: &mut Vec<Read>,
        backoff: &mut Backoff,
    ) -> Result<(), Interrupted> {
        let mut halts = Vec::with_capacity(fillings.len());
        for filling in &mut *fillings {
            halts.push(self.recall(filling, chunk).await?);
        }
        for batch in &chunk.batches {
            filling::read(fillings, batch, reads);
            for (filling, halt) in fillings.iter_mut().zip(&mut halts) {
                if halt.is_none() {
                    *halt = filling.take(self.partition, batch, reads).err();
                }
            }
        }
        for (mut filling, halt) in std::mem::take(fillings).into_iter().zip(halts) {
            let Some(halt) = halt else {
                filling.pass(chunk.cursor);
                fillings.push(filling);
                continue;
            };
            let reason = match halt {
                Halt::Row(reason) => reason,
                Halt::Poison(reason) => match self.write(&mut filling, backoff).await? {
                    Some(refused) => refused,
                    None => reason,
                },
            };
            self.leave(&filling, &reason).await?;
        }
        Ok(())
    }

    /// Loads the rows that were written earlier and are needed for this chunk.
    async fn recall(
        &self,
        filling: &mut Filling,
        chunk: &Chunk,
    ) -> Result<Option<Halt>, Interrupted> {
        if filling.from == Offset::START || !filling.gather.recalls() {
            return Ok(None);
        }
        let missing = filling.gather.missing(filling.new_among(&chunk.batches));
        if missing.is_empty() {
            return Ok(None);
        }
        let pool = &self.context.pool;
        indexes::make(pool, &filling.version, Indexes::Key).await?;
        match filling.gather.recall(pool, &missing).await.map_err(Refusal::from) {
            Ok(()) => Ok(None),
            Err(Refusal::Refused(reason)) => Ok(Some(Halt::Row(reason))),
            Err(Refusal::Transient(error)) => Err(error.into()),
        }
    }

    /// Writes what is gathered: everything if `all` is set, otherwise the largest fills until the
    /// rest fits in memory.
    async fn write_some(
        &self,
        fillings: &mut Vec<Filling>,
        all: bool,
        backoff: &mut Backoff,
    ) -> Result<(), Interrupted> {
        let bytes = |filling: &Filling| filling.gather.bytes();
        while all || fillings.iter().map(bytes).sum::<usize>() >= self.max_bytes() {
            let waiting = |(_, filling): &(usize, &Filling)| filling.step(self.partition).is_some();
            let largest = fillings.iter().enumerate().filter(waiting);
            let Some((place, _)) = largest.max_by_key(|(_, filling)| bytes(filling)) else { break };
            if let Some(reason) = self.write(&mut fillings[place], backoff).await? {
                self.leave(&fillings.remove(place), &reason).await?;
            }
        }
        Ok(())
    }

    /// A gentle rebuild copies little at a time, because the server cannot be paused in the middle
    /// of a statement.
    fn max_bytes(&self) -> usize {
        if self.gentle() { self.max_bytes.min(GENTLE_BYTES) } else { self.max_bytes }
    }

    /// Pauses while a serving version is behind, but not for ever. A gentle rebuild also pauses in
    /// proportion to how long it has worked.
    async fn give_way(&self, worked: Duration) {
        let Context { environment, live, .. } = &*self.context;
        if self.gentle() {
            environment.sleep(worked * GENTLE_RESTS).await;
        }
        let mut rested = Duration::ZERO;
        while live.lag(environment.now()) > LIVE_LAG && rested < LONGEST_REST {
            environment.sleep(REST).await;
            rested += REST;
        }
    }

    /// Writes what a version has gathered, and retries until the database answers. Returns why the
    /// rows were refused, if they were.
    async fn write(
        &self,
        filling: &mut Filling,
        backoff: &mut Backoff,
    ) -> Result<Option<String>, Interrupted> {
        let Some(step) = filling.step(self.partition) else { return Ok(None) };
        if filling.gather.finds_rows() {
            indexes::make(&self.context.pool, &filling.version, Indexes::Key).await?;
        }
        loop {
            match self.commit(filling, step).await {
                Ok(()) => break,
                Err(Failed::Database(error)) => {
                    tracing::warn!(
                        error = &error as &dyn Error,
                        "the rows cannot be copied, trying again"
                    );
                    tokio::select! {
                        () = backoff.rest(&*self.context.environment) => {}
                        () = self.stop.cancelled() => return Err(Interrupted::Stopped),
                    }
                }
                Err(Failed::Refused(reason)) => return Ok(Some(reason)),
                Err(failed) => return Err(failed.into()),
            }
        }
        backoff.reset();
        let model = filling.version.id.model.as_str();
        metrics::counter!("projection_events_total", "projection" => model)
            .increment(filling.written());
        self.reached.set(step.share, filling.from);
        Ok(None)
    }

    async fn commit(&self, filling: &Filling, step: Move) -> Result<(), Failed> {
        let (mut tx, _) = transaction::begin(&self.context, &[step]).await?;
        filling.gather.write(&mut tx).await.map_err(Refusal::from)?;
        tx.commit().await.map_err(Failed::Database)
    }

    /// Hands the partition of a version over to the ordinary feed, from its checkpoint on.
    async fn leave(&self, filling: &Filling, reason: &str) -> Result<(), Interrupted> {
        let (id, partition) = self.share(&filling.version);
        tracing::warn!(
            version = %id, %partition, reason,
            "a partition is filled only up to an event that cannot be applied"
        );
        checkpoint::end_bulk(&self.context.pool, (id, partition), filling.from).await?;
        Ok(())
    }

    /// The log is damaged: writes the events before the damage, and stops the partition there.
    async fn halt(
        &self,
        fillings: Vec<Filling>,
        damage: &str,
        backoff: &mut Backoff,
    ) -> Result<(), Interrupted> {
        for mut filling in fillings {
            if let Some(reason) = self.write(&mut filling, backoff).await? {
                self.leave(&filling, &reason).await?;
                continue;
            }
            halt(&self.context.pool, self.share(&filling.version), filling.from, damage).await?;
        }
        Ok(())
    }
}
