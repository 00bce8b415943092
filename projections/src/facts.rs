//! Decoded events on their way to the read models.

use events::{
    DecodeError, Event, Offset, Partition, Position, StreamKind, log::Chunk, log::Cursor,
    log::Record,
};

/// An event with the record it was read from.
#[derive(Debug)]
pub(crate) struct Fact {
    pub position: Position,
    pub record: Record,
    pub event: Event,
}

/// Decoded batches of one partition.
#[derive(Debug)]
pub(crate) struct Decoded {
    /// In the order of the log; writers' records left out.
    pub facts: Vec<Fact>,
    /// Behind the batches decoded.
    pub cursor: Cursor,
    /// Whether this was all there is for now.
    pub at_end: bool,
    /// What stops the partition at `cursor`.
    pub poison: Option<DecodeError>,
}

impl Decoded {
    /// Decodes whole batches up to the first that has an event this program does not know. `before` is where the chunk
    /// begins.
    pub fn of(chunk: Chunk, before: Cursor) -> Self {
        let mut cursor = before;
        let mut facts = Vec::with_capacity(chunk.batches.iter().map(|b| b.records.len()).sum());
        for batch in chunk.batches {
            let whole = facts.len();
            let begin = batch.records.first().map_or(cursor.offset, |stored| stored.offset);
            for stored in batch.records {
                let position = Position { partition: batch.partition, offset: stored.offset };
                let record = stored.record;
                if record.stream.kind == StreamKind::Writer {
                    continue;
                }
                let schema = record.metadata.schema;
                match Event::from_json(record.stream, &record.event_type, schema, &record.body) {
                    Ok(event) => facts.push(Fact { position, record, event }),
                    Err(error) => {
                        facts.truncate(whole);
                        cursor.offset = begin;
                        return Self { facts, cursor, at_end: false, poison: Some(error) };
                    }
                }
            }
            cursor.term = batch.term;
        }
        Self { facts, cursor: chunk.cursor, at_end: chunk.at_end, poison: None }
    }
}

/// The facts that one version has not applied yet: a slice for each partition.
#[derive(Default)]
pub(crate) struct Facts<'a>(Vec<&'a [Fact]>);

impl<'a> Facts<'a> {
    /// Adds the facts of a partition that stand at `from` or behind it; gives them back.
    pub fn add(&mut self, facts: &'a [Fact], from: Offset) -> &'a [Fact] {
        let first = facts.partition_point(|fact| fact.position.offset < from);
        let rest = &facts[first..];
        if !rest.is_empty() {
            self.0.push(rest);
        }
        rest
    }

    /// All of them; those of a partition in the order of the log.
    pub fn iter(&self) -> impl Iterator<Item = &Fact> {
        self.0.iter().flat_map(|facts| facts.iter())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The key of a partition in the tables.
pub(crate) fn sql_partition(partition: Partition) -> i32 {
    i32::try_from(partition.0).unwrap_or(i32::MAX)
}
