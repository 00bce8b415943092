//! Parts what is applied from what is kept back.

use crate::{facts::Fact, facts::Undecodable, lease::Share, version::VersionId};
use events::{Offset, Partition, Position, StreamId, Timestamp, log::Record};
use rustc_hash::FxHashSet;
use std::{collections::BTreeMap, sync::Arc};

/// Events of one stream that a version keeps back.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Held {
    pub share: Share,
    pub stream: StreamId,
    /// Why the stream is parked; `None` if it was parked before.
    pub reason: Option<String>,
    /// The stream's version with the first of the events.
    pub version: u64,
    pub first: Offset,
    pub first_time: Timestamp,
    pub last: Offset,
    pub last_time: Timestamp,
    pub events: i64,
}

/// The streams of one version that are parked, and what it has kept back of what was read.
#[derive(Clone, Debug)]
pub(crate) struct Sieve {
    version: VersionId,
    parked: BTreeMap<Partition, Arc<FxHashSet<StreamId>>>,
    held: BTreeMap<(Partition, StreamId), Held>,
}

/// The longest reason that is kept, in characters.
const REASON: usize = 1_000;

impl Sieve {
    pub fn new(version: VersionId) -> Self {
        Self { version, parked: BTreeMap::new(), held: BTreeMap::new() }
    }

    /// These streams of a partition were parked before.
    pub fn know(&mut self, partition: Partition, parked: &Arc<FxHashSet<StreamId>>) {
        if !parked.is_empty() {
            self.parked.insert(partition, Arc::clone(parked));
        }
    }

    /// Whether the fact is to be applied; otherwise it is kept back.
    pub fn lets_through(&mut self, fact: &Fact) -> bool {
        let stream = fact.record.stream;
        if self.is_parked(fact.position, stream) {
            self.hold(fact.position, &fact.record, None);
            return false;
        }
        true
    }

    /// Keeps back an event that no code here can read, and with it the rest of its stream.
    pub fn undecodable(&mut self, event: &Undecodable) {
        self.hold(event.position, &event.record, Some(&event.reason));
    }

    /// Keeps back a fact that was refused, and with it the rest of its stream.
    pub fn refused(&mut self, fact: &Fact, reason: &str) {
        self.hold(fact.position, &fact.record, Some(reason));
    }

    /// What is kept back, by stream.
    pub fn held(&self) -> impl Iterator<Item = &Held> {
        self.held.values()
    }

    fn is_parked(&self, at: Position, stream: StreamId) -> bool {
        let held = self.held.get(&(at.partition, stream));
        held.is_some_and(|held| held.first <= at.offset) || self.was_parked(at.partition, stream)
    }

    fn was_parked(&self, partition: Partition, stream: StreamId) -> bool {
        self.parked.get(&partition).is_some_and(|parked| parked.contains(&stream))
    }

    fn hold(&mut self, at: Position, record: &Record, reason: Option<&str>) {
        let stream = record.stream;
        let reason = reason.filter(|_| !self.was_parked(at.partition, stream)).map(shown);
        let held = self.held.entry((at.partition, stream)).or_insert_with(|| Held {
            share: (self.version, at.partition),
            stream,
            reason: reason.clone(),
            version: record.metadata.version,
            first: at.offset,
            first_time: record.time,
            last: at.offset,
            last_time: record.time,
            events: 0,
        });
        // What cannot be read is known before what is refused, wherever it stands.
        if at.offset < held.first {
            (held.first, held.first_time) = (at.offset, record.time);
            (held.version, held.reason) = (record.metadata.version, reason);
        }
        held.last = held.last.max(at.offset);
        held.last_time = held.last_time.max(record.time);
        held.events += 1;
    }
}

/// `PostgreSQL`'s text holds no NUL, and the name of an event may.
fn shown(reason: &str) -> String {
    reason.replace('\0', "\u{fffd}").chars().take(REASON).collect()
}
