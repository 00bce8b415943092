//! What a partition's events come to, gathered in memory to be written in bulk.

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

/// What a read model looks at in the events of a stream kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Looks {
    /// At nothing: they are only counted.
    Away,
    /// At the records; their JSON is not read.
    AtRecords,
    /// At the events.
    AtEvents,
}

/// Gathers the events of one partition, from a checkpoint on.
#[async_trait]
pub(crate) trait Gather: Send + Sync {
    /// What it looks at.
    fn looks(&self, kind: StreamKind) -> Looks;

    /// Takes the next event in; with `event` if it looks at events of this kind.
    fn take(
        &mut self,
        at: Position,
        record: &Record,
        event: Option<&Event>,
    ) -> Result<(), ApplyError>;

    /// About how much memory it holds.
    fn bytes(&self) -> usize;

    /// Whether [`write`](Self::write) looks for rows by their key.
    fn finds_rows(&self) -> bool {
        false
    }

    /// Writes all of it, and keeps it: the transaction may have to be tried again.
    async fn write(&self, connection: &mut PgConnection) -> Result<(), ApplyError>;

    /// Forgets all of it.
    fn clear(&mut self);

    /// Whether rows that are in the tables already have to be [recalled](Self::recall), by their key.
    fn recalls(&self) -> bool {
        false
    }

    /// The streams among these batches whose rows must be recalled before.
    fn missing(&self, _batches: &[StoredBatch]) -> Vec<Uuid> {
        Vec::new()
    }

    /// Takes rows in from the tables.
    async fn recall(&mut self, _pool: &PgPool, _streams: &[Uuid]) -> Result<(), ApplyError> {
        Ok(())
    }
}

/// One row a stream, in the order in which they first came.
pub(crate) struct Streams<R> {
    table: Table<R>,
    rows: Vec<Kept<R>>,
    places: FxHashMap<Uuid, usize>,
    /// Of what the rows point to.
    texts: usize,
}

struct Kept<R> {
    id: Uuid,
    folded: Folded<R>,
    /// Bytes of the stream's longest event: what the row points to came from a few of its events.
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
    fn looks(&self, kind: StreamKind) -> Looks {
        if kind == R::KIND { Looks::AtEvents } else { Looks::Away }
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
        // In the order of the key: neighbours in the index are written together.
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
