//! Gathers the events of a partition in memory, to write their rows in bulk.

use crate::{
    projection::ApplyError,
    streams::{Folded, StreamRow, Table},
};
use async_trait::async_trait;
use events::{
    Event, Position, StreamKind,
    log::{Record, StoredBatch},
};
use rustc_hash::{FxHashMap, FxHashSet};
use sqlx::{PgConnection, PgPool};
use std::collections::hash_map::Entry;
use uuid::Uuid;

/// What a read model needs of the events of a stream kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing: the events are only counted.
    Nothing,
    /// The record without its decoded event.
    Record,
    /// The decoded event.
    Event,
}

/// Gathers the events of one partition, from a checkpoint on.
#[async_trait]
pub(crate) trait Gather: Send + Sync {
    /// What it needs of events of this kind.
    fn needs(&self, kind: StreamKind) -> Needs;

    /// Gathers the next event. `event` is given if [`Needs::Event`] was asked for.
    fn take(
        &mut self,
        at: Position,
        record: &Record,
        event: Option<&Event>,
    ) -> Result<(), ApplyError>;

    /// About how many bytes of memory it uses.
    fn bytes(&self) -> usize;

    /// Whether [`write`](Self::write) finds rows by their key.
    fn finds_rows(&self) -> bool {
        false
    }

    /// Writes everything gathered, without clearing it: the transaction may have to be retried.
    async fn write(&self, connection: &mut PgConnection) -> Result<(), ApplyError>;

    /// Clears everything gathered.
    fn clear(&mut self);

    /// Whether rows that were written earlier must be [loaded](Self::recall) again when their
    /// stream goes on.
    fn recalls(&self) -> bool {
        false
    }

    /// The streams in these batches whose rows must be loaded first.
    fn missing(&self, _batches: &[StoredBatch]) -> Vec<Uuid> {
        Vec::new()
    }

    /// Loads rows from the tables.
    async fn recall(&mut self, _pool: &PgPool, _streams: &[Uuid]) -> Result<(), ApplyError> {
        Ok(())
    }
}

/// Rows of streams, in the order in which the streams were first met.
pub(crate) struct Streams<R> {
    table: Table<R>,
    rows: Vec<Kept<R>>,
    places: FxHashMap<Uuid, usize>,
    /// Bytes of the texts in the rows, estimated.
    texts: usize,
}

struct Kept<R> {
    id: Uuid,
    folded: Folded<R>,
    /// Bytes of the stream's longest event. The texts in a row come from a few of its events, so
    /// this bounds their size.
    longest: usize,
}

impl<R: StreamRow> Streams<R> {
    pub fn new(table: Table<R>) -> Self {
        Self { table, rows: Vec::new(), places: FxHashMap::default(), texts: 0 }
    }

    fn kept(&self, new: bool) -> Vec<&Kept<R>> {
        self.rows.iter().filter(|kept| kept.folded.new == new).collect()
    }
}

#[async_trait]
impl<R: StreamRow> Gather for Streams<R> {
    fn needs(&self, kind: StreamKind) -> Needs {
        if kind == R::KIND { Needs::Event } else { Needs::Nothing }
    }

    fn take(
        &mut self,
        at: Position,
        record: &Record,
        event: Option<&Event>,
    ) -> Result<(), ApplyError> {
        let Some(event) = event.and_then(R::event) else { return Ok(()) };
        let place = match self.places.entry(record.stream.id) {
            Entry::Occupied(place) => *place.get(),
            Entry::Vacant(vacant) => {
                let folded = Folded::begin(at, record, event)?;
                self.rows.push(Kept { id: record.stream.id, folded, longest: 0 });
                *vacant.insert(self.rows.len() - 1)
            }
        };
        let kept = &mut self.rows[place];
        kept.folded.take(at, record, event)?;
        let longer = record.body.len().saturating_sub(kept.longest);
        kept.longest += longer;
        self.texts += 2 * longer;
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.rows.capacity() * size_of::<Kept<R>>()
            + self.places.capacity() * size_of::<(Uuid, usize)>()
            + self.texts
    }

    async fn write(&self, connection: &mut PgConnection) -> Result<(), ApplyError> {
        let new: Vec<&R> = self.kept(true).into_iter().map(|kept| &kept.folded.row).collect();
        self.table.copy(connection, &new).await?;
        let mut old = self.kept(false);
        // In the order of the key, so that neighbours in the index are written together.
        old.sort_unstable_by_key(|kept| kept.id);
        let old: Vec<&R> = old.into_iter().map(|kept| &kept.folded.row).collect();
        self.table.update(connection, &old).await
    }

    fn clear(&mut self) {
        (self.rows, self.places, self.texts) = (Vec::new(), FxHashMap::default(), 0);
    }

    fn recalls(&self) -> bool {
        true
    }

    fn missing(&self, batches: &[StoredBatch]) -> Vec<Uuid> {
        let (mut seen, mut missing) = (FxHashSet::default(), Vec::new());
        for stored in batches.iter().flat_map(|batch| &batch.records) {
            let stream = stored.record.stream;
            if stream.kind != R::KIND || self.places.contains_key(&stream.id) {
                continue;
            }
            if seen.insert(stream.id) && stored.record.metadata.version > 1 {
                missing.push(stream.id);
            }
        }
        missing.sort_unstable();
        missing
    }

    async fn recall(&mut self, pool: &PgPool, streams: &[Uuid]) -> Result<(), ApplyError> {
        if streams.is_empty() {
            return Ok(());
        }
        let mut connection = pool.acquire().await?;
        for (id, folded) in self.table.load(&mut connection, streams).await? {
            self.places.insert(id, self.rows.len());
            self.rows.push(Kept { id, folded, longest: 0 });
        }
        Ok(())
    }
}
