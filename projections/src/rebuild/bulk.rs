//! A new version that is far behind is filled in bulk: some partitions at a time, each read to where it ended when it was
//! begun, folded in memory and copied into tables without indexes.
//!
//! Rows and checkpoint move in one transaction as ever, so whatever dies leaves whole partitions, or whole parts of one:
//! what is gathered is written as soon as it holds more than a bound, whatever the length of the log. From the second part of
//! a partition on, rows that are needed again are found by their key, which is made then.
//!
//! A partition with an event that cannot be applied is filled up to there and left to the ordinary feed, which parks the
//! event's stream.

use crate::{
    backoff::Backoff,
    checkpoint::{self, Checkpoint, Last, Move},
    full_text,
    lease::Share,
    parked::Refusal,
    rebuild::{
        gather::{Gather, Looks},
        indexes::{self, Indexes},
    },
    source,
    transaction::{self, Failed},
    version::Version,
    worker::{Context, Interrupted, Reached, halt},
};
use events::{
    DecodeError, Event, Offset, Partition, Position, StreamKind,
    log::{BatchReader, Chunk, Cursor, ReadError, Record, StoredBatch},
};
use std::{error::Error, sync::Arc, time::Duration};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

/// What serves may be so far behind before a rebuild gives way to it.
const LIVE_LAG: Duration = Duration::from_millis(250);

/// The rest between two looks whether it still is.
const REST: Duration = Duration::from_millis(20);

/// A rebuild goes on after this, a chunk at a time: what serves may be behind for another reason.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// A gentle rebuild rests so many times as long as it works.
const GENTLE_RESTS: u32 = 2;

/// What a gentle rebuild gathers before it writes, about, in bytes.
const GENTLE_BYTES: usize = 4 << 20;

/// Fills one partition of a version.
pub(crate) struct Bulk {
    pub context: Arc<Context>,
    pub version: Arc<Version>,
    pub partition: Partition,
    /// What is gathered is written once it holds so many bytes.
    pub max_bytes: usize,
    /// How many partitions are filled at a time.
    pub at_once: u32,
    pub turns: Arc<Semaphore>,
    pub reached: Reached,
    pub stop: CancellationToken,
    /// Woken when the partition is done.
    pub done: Arc<Notify>,
}

/// What ends a partition before its end.
enum Halt {
    /// The log is damaged. What is before that is applied.
    Damage(String),
    /// An event that does not read. What is before it is applied.
    Poison(String),
    /// A row that is refused. What was gathered with it is not applied.
    Row(String),
}

impl Bulk {
    /// Fills the partition, or what of it is possible, when it is its turn.
    pub async fn run(self) {
        // One that is to be gentle is filled alone.
        let turns = if self.version.manner.gentle { self.at_once } else { 1 };
        let turn = tokio::select! {
            turn = self.turns.acquire_many(turns) => turn,
            () = self.stop.cancelled() => return,
        };
        let Ok(_turn) = turn else { return };
        let mut backoff = Backoff::default();
        while !self.stop.is_cancelled() {
            match self.fill(&mut backoff).await {
                Ok(()) | Err(Interrupted::Stopped) => break,
                Err(interrupted) => {
                    let error = &interrupted as &dyn Error;
                    tracing::warn!(version = %self.version.id, error, "a partition is begun anew");
                }
            }
            tokio::select! {
                () = backoff.rest(&*self.context.environment) => {}
                () = self.stop.cancelled() => {}
            }
        }
        self.done.notify_one();
    }

    fn share(&self) -> Share {
        (self.version.id, self.partition)
    }

    /// From the checkpoint to where the log ends now.
    async fn fill(&self, backoff: &mut Backoff) -> Result<(), Interrupted> {
        let Context { pool, log, .. } = &*self.context;
        let mut connection = pool.acquire().await?;
        let mut checkpoints = checkpoint::of(&mut connection, self.version.id, false).await?;
        drop(connection);
        let Some(checkpoint) = checkpoints.remove(&self.partition) else { return Ok(()) };
        let gather = self.version.writer.gather();
        if checkpoint.stopped.is_some() {
            return Ok(());
        }
        if let Some(reason) = source::foreign(&**log, self.partition, &checkpoint).await? {
            halt(pool, self.share(), checkpoint.cursor.offset, &reason).await?;
            return Err(Interrupted::Stopped);
        }
        self.reached.set(self.share(), checkpoint.cursor.offset);
        let end = log.end(self.partition).await?;
        let mut reader = BatchReader::open(&**log, self.partition, checkpoint.cursor).await?;
        let mut gathered = Gathered::new(gather, self.partition, &checkpoint);
        let mut over = gathered.cursor.offset >= end;
        let clock = || self.context.environment.monotonic();
        while !over {
            let begun = clock();
            let chunk = tokio::select! {
                chunk = reader.next() => chunk,
                () = self.stop.cancelled() => return Ok(()),
            };
            let at_end = chunk.as_ref().is_ok_and(|chunk| chunk.at_end);
            let (taken, halt) = self.take(gathered, chunk).await?;
            gathered = taken;
            // A batch that is not whole may stand before the end for ever.
            over = at_end || gathered.cursor.offset >= end;
            let full = gathered.gather.bytes() >= self.max_bytes();
            if full || over || halt.is_some() {
                if !matches!(halt, Some(Halt::Row(_))) {
                    self.write(&mut gathered, backoff).await?;
                }
                match halt {
                    Some(Halt::Damage(reason)) => return self.halt(&gathered, &reason).await,
                    Some(Halt::Poison(reason) | Halt::Row(reason)) => {
                        return self.leave(&gathered, &reason).await;
                    }
                    None => {}
                }
            }
            self.give_way(clock().saturating_sub(begun)).await;
        }
        Ok(())
    }

    /// A gentle rebuild copies little at a time: nothing stops the server in the middle of a statement.
    fn max_bytes(&self) -> usize {
        if self.version.manner.gentle { self.max_bytes.min(GENTLE_BYTES) } else { self.max_bytes }
    }

    /// Rests for as long as what serves is behind, within reason; a gentle rebuild rests besides, in proportion to how long
    /// it has worked.
    async fn give_way(&self, worked: Duration) {
        let Context { environment, live, .. } = &*self.context;
        if self.version.manner.gentle {
            environment.sleep(worked * GENTLE_RESTS).await;
        }
        let mut rested = Duration::ZERO;
        while live.lag(environment.now()) > LIVE_LAG && rested < LONGEST_REST {
            environment.sleep(REST).await;
            rested += REST;
        }
    }

    /// Takes in what was read, on a thread that may be busy for long.
    async fn take(
        &self,
        mut gathered: Gathered,
        chunk: Result<Chunk, ReadError>,
    ) -> Result<(Gathered, Option<Halt>), Interrupted> {
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error @ ReadError::Damaged { .. }) => {
                return Ok((gathered, Some(Halt::Damage(full_text(&error)))));
            }
            Err(error) => return Err(error.into()),
        };
        if gathered.from > Offset::START && gathered.gather.recalls() {
            let missing = gathered.gather.missing(&chunk.batches);
            if !missing.is_empty() {
                indexes::make(&self.context.pool, &self.version, Indexes::Key).await?;
                let recalled = gathered.gather.recall(&self.context.pool, &missing).await;
                match recalled.map_err(Refusal::from) {
                    Ok(()) => {}
                    Err(Refusal::Refused(reason)) => {
                        return Ok((gathered, Some(Halt::Row(reason))));
                    }
                    Err(Refusal::Transient(error)) => return Err(error.into()),
                }
            }
        }
        let taken = tokio::task::spawn_blocking(move || {
            let halt = gathered.take(&chunk.batches).err();
            if halt.is_none() {
                gathered.cursor = chunk.cursor;
            }
            (gathered, halt)
        });
        Ok(taken.await.map_err(|_| sqlx::Error::WorkerCrashed)?)
    }

    /// Writes what is gathered, however long the database takes to come back.
    async fn write(
        &self,
        gathered: &mut Gathered,
        backoff: &mut Backoff,
    ) -> Result<(), Interrupted> {
        if gathered.cursor.offset <= gathered.from {
            return Ok(());
        }
        if gathered.gather.finds_rows() {
            indexes::make(&self.context.pool, &self.version, Indexes::Key).await?;
        }
        loop {
            match self.commit(gathered).await {
                Ok(()) => break,
                Err(Failed::Database(error)) => {
                    tracing::warn!(error = &error as &dyn Error, "rows not copied, trying again");
                    tokio::select! {
                        () = backoff.rest(&*self.context.environment) => {}
                        () = self.stop.cancelled() => return Err(Interrupted::Stopped),
                    }
                }
                Err(Failed::Refused(reason)) => return self.leave(gathered, &reason).await,
                Err(failed) => return Err(failed.into()),
            }
        }
        backoff.reset();
        let model = self.version.id.model.as_str();
        metrics::counter!("projection_events_total", "projection" => model)
            .increment(gathered.events.unsigned_abs());
        gathered.written();
        self.reached.set(self.share(), gathered.from);
        Ok(())
    }

    async fn commit(&self, gathered: &Gathered) -> Result<(), Failed> {
        let step = Move {
            share: self.share(),
            expected: gathered.from,
            to: gathered.cursor,
            last: gathered.last,
            events: gathered.events,
        };
        let (mut tx, _) = transaction::begin(&self.context, &[step]).await?;
        gathered.gather.write(&mut tx).await.map_err(Refusal::from)?;
        tx.commit().await.map_err(Failed::Database)
    }

    /// Leaves the partition to the ordinary feed, from its checkpoint on.
    async fn leave(&self, gathered: &Gathered, reason: &str) -> Result<(), Interrupted> {
        tracing::warn!(
            version = %self.version.id,
            partition = %self.partition,
            reason,
            "filled up to an event that cannot be applied"
        );
        checkpoint::end_bulk(&self.context.pool, self.share(), gathered.from).await?;
        Err(Interrupted::Stopped)
    }

    /// Stops the partition where its checkpoint is.
    async fn halt(&self, gathered: &Gathered, reason: &str) -> Result<(), Interrupted> {
        halt(&self.context.pool, self.share(), gathered.from, reason).await?;
        Err(Interrupted::Stopped)
    }
}

/// What was read since the checkpoint.
struct Gathered {
    gather: Box<dyn Gather>,
    partition: Partition,
    /// Where the checkpoint is.
    from: Offset,
    cursor: Cursor,
    last: Option<Last>,
    events: i64,
    /// The events of a batch; kept for its memory.
    decoded: Vec<Option<Event>>,
}

impl Gathered {
    fn new(gather: Box<dyn Gather>, partition: Partition, checkpoint: &Checkpoint) -> Self {
        let (cursor, decoded) = (checkpoint.cursor, Vec::new());
        Self { gather, partition, from: cursor.offset, cursor, last: None, events: 0, decoded }
    }

    /// All of it is in the database.
    fn written(&mut self) {
        self.gather.clear();
        (self.from, self.last, self.events) = (self.cursor.offset, None, 0);
    }

    /// Takes whole batches in, up to the first that has an event this program does not know.
    fn take(&mut self, batches: &[StoredBatch]) -> Result<(), Halt> {
        for batch in batches {
            let begin = batch.records.first().map_or(self.cursor.offset, |stored| stored.offset);
            self.cursor.offset = begin;
            self.decoded.clear();
            for stored in &batch.records {
                let decoded = decode(&*self.gather, &stored.record);
                self.decoded.push(decoded.map_err(|error| Halt::Poison(full_text(&error)))?);
            }
            for (stored, event) in batch.records.iter().zip(&self.decoded) {
                let record = &stored.record;
                if record.stream.kind == StreamKind::Writer {
                    continue;
                }
                let at = Position { partition: self.partition, offset: stored.offset };
                if self.gather.looks(record.stream.kind) != Looks::Away {
                    let taken = self.gather.take(at, record, event.as_ref());
                    taken.map_err(|error| Halt::Row(error.to_string()))?;
                }
                self.events += 1;
                let (event_id, time) = (record.event_id, record.time);
                self.last = Some(Last { offset: stored.offset, event_id, time });
            }
            self.cursor.term = batch.term;
        }
        Ok(())
    }
}

/// The event, if it is looked at; where only records are, it must be known at least.
fn decode(gather: &dyn Gather, record: &Record) -> Result<Option<Event>, DecodeError> {
    let (kind, schema) = (record.stream.kind, record.metadata.schema);
    if kind == StreamKind::Writer || gather.looks(kind) == Looks::Away {
        return Ok(None);
    }
    let known = Event::known_schema(kind, &record.event_type);
    if gather.looks(kind) != Looks::AtEvents && known == Some(schema) {
        return Ok(None);
    }
    Event::from_json(record.stream, &record.event_type, schema, &record.body).map(Some)
}
