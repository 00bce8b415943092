//! Separates the events to apply from those to keep back.

use crate::{facts::Fact, facts::Undecodable, lease::Share, version::VersionId};
use events::{Offset, Partition, Position, StreamId, Timestamp, log::Record};
use rustc_hash::FxHashSet;
use std::{collections::BTreeMap, sync::Arc};

/// Events of one stream that a version keeps back.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KeptBack {
    pub share: Share,
    pub stream: StreamId,
    /// Why the stream is parked; `None` if it was parked before.
    pub reason: Option<String>,
    /// The stream version of the first of the events.
    pub version: u64,
    pub first: Offset,
    pub first_time: Timestamp,
    pub last: Offset,
    pub last_time: Timestamp,
    pub events: i64,
}

/// The parked streams of one version, and the events that it has kept back of the part that is
/// being applied.
#[derive(Clone, Debug)]
pub(crate) struct Sieve {
    version: VersionId,
    parked: BTreeMap<Partition, Arc<FxHashSet<StreamId>>>,
    kept_back: BTreeMap<(Partition, StreamId), KeptBack>,
}

/// The longest reason that is stored, in characters.
const REASON: usize = 1_000;

impl Sieve {
    pub fn new(version: VersionId) -> Self {
        Self { version, parked: BTreeMap::new(), kept_back: BTreeMap::new() }
    }

    /// Notes the streams of a partition that were parked before.
    pub fn know(&mut self, partition: Partition, parked: &Arc<FxHashSet<StreamId>>) {
        if !parked.is_empty() {
            self.parked.insert(partition, Arc::clone(parked));
        }
    }

    /// Whether to apply the fact. If not, it is kept back.
    pub fn lets_through(&mut self, fact: &Fact) -> bool {
        let stream = fact.record.stream;
        if self.is_parked(fact.position, stream) {
            self.keep_back(fact.position, &fact.record, None);
            return false;
        }
        true
    }

    /// Keeps back an event that no code here can decode, and the rest of its stream.
    pub fn undecodable(&mut self, event: &Undecodable) {
        self.keep_back(event.position, &event.record, Some(&event.reason));
    }

    /// Keeps back a fact that was refused, and the rest of its stream.
    pub fn refused(&mut self, fact: &Fact, reason: &str) {
        self.keep_back(fact.position, &fact.record, Some(reason));
    }

    /// The events kept back, by stream.
    pub fn kept_back(&self) -> impl Iterator<Item = &KeptBack> {
        self.kept_back.values()
    }

    fn is_parked(&self, at: Position, stream: StreamId) -> bool {
        let kept_back = self.kept_back.get(&(at.partition, stream));
        kept_back.is_some_and(|kept_back| kept_back.first <= at.offset)
            || self.was_parked(at.partition, stream)
    }

    fn was_parked(&self, partition: Partition, stream: StreamId) -> bool {
        self.parked.get(&partition).is_some_and(|parked| parked.contains(&stream))
    }

    fn keep_back(&mut self, at: Position, record: &Record, reason: Option<&str>) {
        let stream = record.stream;
        let reason = reason.filter(|_| !self.was_parked(at.partition, stream)).map(shown);
        let kept_back = self.kept_back.entry((at.partition, stream)).or_insert_with(|| KeptBack {
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
        // Events that cannot be decoded are reported before the refused ones, so an earlier event
        // may come later.
        if at.offset < kept_back.first {
            (kept_back.first, kept_back.first_time) = (at.offset, record.time);
            (kept_back.version, kept_back.reason) = (record.metadata.version, reason);
        }
        kept_back.last = kept_back.last.max(at.offset);
        kept_back.last_time = kept_back.last_time.max(record.time);
        kept_back.events += 1;
    }
}

/// `PostgreSQL`'s `text` cannot contain NUL, and the name of an event may.
fn shown(reason: &str) -> String {
    reason.replace('\0', "\u{fffd}").chars().take(REASON).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ReadModel, facts::Facts};
    use events::{Event, Fingerprint, Metadata, order};
    use uuid::Uuid;

    const VERSION: VersionId = VersionId { model: ReadModel::Orders, number: 1 };
    const HERE: Partition = Partition(0);

    fn fact(stream: u128, version: u64, offset: i64) -> Fact {
        let id = Uuid::from_u128(stream);
        let metadata = Metadata {
            version,
            schema: 1,
            command_id: id,
            fingerprint: Fingerprint::default(),
            correlation_id: id,
            causation_id: id,
        };
        let event = Event::from(order::Event::from(order::Confirmed::default()));
        let record = event.to_record(id, StreamId::order(id), Timestamp::UNIX_EPOCH, metadata);
        Fact { position: Position { partition: HERE, offset: Offset(offset) }, record, event }
    }

    fn undecodable(stream: u128, version: u64, offset: i64) -> Undecodable {
        let Fact { position, record, .. } = fact(stream, version, offset);
        Undecodable { position, record, reason: "unknown\0".to_owned() }
    }

    fn kept_back(sieve: &Sieve) -> Vec<(u64, i64, i64, i64, Option<&str>)> {
        sieve
            .kept_back()
            .map(|it| (it.version, it.first.0, it.last.0, it.events, it.reason.as_deref()))
            .collect()
    }

    #[test]
    fn what_follows_poison_in_its_stream_is_kept_back_and_nothing_else() {
        let mut sieve = Sieve::new(VERSION);
        assert!(sieve.lets_through(&fact(1, 1, 10)));
        sieve.undecodable(&undecodable(1, 2, 11));
        assert!(sieve.lets_through(&fact(2, 1, 12)));
        assert!(!sieve.lets_through(&fact(1, 3, 13)));
        assert_eq!(kept_back(&sieve), [(2, 11, 13, 2, Some("unknown\u{fffd}"))]);
    }

    #[test]
    fn a_refusal_before_what_does_not_read_begins_what_is_kept_back() {
        let mut sieve = Sieve::new(VERSION);
        sieve.undecodable(&undecodable(1, 4, 14));
        let before = [fact(1, 1, 11), fact(1, 2, 12), fact(1, 3, 13)];
        assert!(sieve.lets_through(&before[0]));
        sieve.refused(&before[1], "refused");
        assert!(!sieve.lets_through(&before[2]));
        assert_eq!(kept_back(&sieve), [(2, 12, 14, 3, Some("refused"))]);
    }

    #[test]
    fn what_was_parked_before_is_noted_without_a_reason() {
        let mut sieve = Sieve::new(VERSION);
        let parked = FxHashSet::from_iter([StreamId::order(Uuid::from_u128(1))]);
        sieve.know(HERE, &Arc::new(parked));
        sieve.undecodable(&undecodable(1, 7, 20));
        assert!(!sieve.lets_through(&fact(1, 8, 21)));
        assert!(sieve.lets_through(&fact(2, 1, 22)));
        assert_eq!(kept_back(&sieve), [(7, 20, 21, 2, None)]);
    }

    #[test]
    fn facts_are_halved_and_sifted_in_their_order() {
        let (one, other) = ([fact(1, 1, 1), fact(1, 2, 2), fact(1, 3, 3)], [fact(2, 1, 1)]);
        let mut facts = Facts::from(&one[..]);
        facts.extend(Facts::from(&other[..]));
        let versions = |facts: &Facts<'_>| {
            facts.iter().map(|it| it.record.metadata.version).collect::<Vec<_>>()
        };
        let (left, right) = facts.halves();
        assert_eq!((versions(&left), versions(&right)), (vec![1, 2], vec![3, 1]));
        assert_eq!(right.len(), 2);
        let sifted = facts.sift(|fact| fact.record.metadata.version != 2);
        assert_eq!(versions(&sifted), [1, 3, 1]);
        assert!(facts.sift(|_| false).is_empty());
    }
}
