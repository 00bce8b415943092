//! Decoded events on their way to the read models.

use crate::full_text;
use events::{
    Event, Offset, Partition, Position, StreamKind, log::Chunk, log::Cursor, log::Record,
};

/// An event, decoded, with the record it was read from.
#[derive(Debug)]
pub(crate) struct Fact {
    pub position: Position,
    pub record: Record,
    pub event: Event,
}

/// An event that this program cannot decode. It parks its stream.
#[derive(Debug)]
pub(crate) struct Undecodable {
    pub position: Position,
    /// Without its body.
    pub record: Record,
    pub reason: String,
}

/// Decoded batches of one partition.
#[derive(Debug)]
pub(crate) struct Decoded {
    /// In the order of the log, without the writers' own records.
    pub facts: Vec<Fact>,
    /// The events that cannot be decoded, in the order of the log.
    pub undecodable: Vec<Undecodable>,
    /// The position after the decoded batches.
    pub cursor: Cursor,
    /// Whether the log has nothing more for now.
    pub at_end: bool,
}

impl Decoded {
    /// Decodes whole batches.
    pub fn of(chunk: Chunk) -> Self {
        let mut facts = Vec::with_capacity(chunk.batches.iter().map(|b| b.records.len()).sum());
        let mut undecodable = Vec::new();
        for batch in chunk.batches {
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
                        let mut record = record;
                        record.body.clear();
                        let reason = full_text(&error);
                        undecodable.push(Undecodable { position, record, reason });
                    }
                }
            }
        }
        Self { facts, undecodable, cursor: chunk.cursor, at_end: chunk.at_end }
    }
}

/// The facts that one version has not applied yet: a slice for each partition.
#[derive(Clone, Default)]
pub(crate) struct Facts<'a>(Vec<&'a [Fact]>);

impl<'a> Facts<'a> {
    /// Adds the facts of a partition from `from` on. Returns the added facts.
    pub fn add(&mut self, facts: &'a [Fact], from: Offset) -> &'a [Fact] {
        let first = facts.partition_point(|fact| fact.position.offset < from);
        let rest = &facts[first..];
        if !rest.is_empty() {
            self.0.push(rest);
        }
        rest
    }

    /// Adds the facts of `other`.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The facts for which `keep` returns true.
    pub fn sift(&self, mut keep: impl FnMut(&Fact) -> bool) -> Self {
        let mut kept = Self::default();
        for facts in &self.0 {
            let runs = facts.split(|fact| !keep(fact));
            kept.0.extend(runs.filter(|run| !run.is_empty()));
        }
        kept
    }

    /// The first half of the facts, and the second.
    pub fn halves(&self) -> (Self, Self) {
        let (mut left, mut right) = (Self::default(), Self::default());
        let mut room = self.len() / 2;
        for facts in &self.0 {
            let (first, second) = facts.split_at(room.min(facts.len()));
            room -= first.len();
            left.0.extend(Some(first).filter(|part| !part.is_empty()));
            right.0.extend(Some(second).filter(|part| !part.is_empty()));
        }
        (left, right)
    }

    /// The number of facts.
    pub fn len(&self) -> usize {
        self.0.iter().map(|facts| facts.len()).sum()
    }

    /// All facts; those of one partition are in the order of the log.
    pub fn iter(&self) -> impl Iterator<Item = &Fact> {
        self.0.iter().flat_map(|facts| facts.iter())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> From<&'a [Fact]> for Facts<'a> {
    fn from(facts: &'a [Fact]) -> Self {
        Self(vec![facts])
    }
}

/// The partition number as the tables store it.
pub(crate) fn sql_partition(partition: Partition) -> i32 {
    i32::try_from(partition.0).unwrap_or(i32::MAX)
}
