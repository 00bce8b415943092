//! The commands that have been applied. They are known from the log, so a retry finds its first
//! answer after any crash.
//!
//! The command that created a stream is remembered for ever, in the stream. Other commands under a
//! client's key are remembered for [`WINDOW`] of the log's age, so a replay forgets the same ones. A
//! client cannot repeat a command without a key, so those are not remembered.
//!
//! The age of a log is its log time without long pauses. A clock that was once days ahead makes log
//! time jump, which must not empty the memory, and from the log alone a jump and a long pause look
//! alike.

use chrono::TimeDelta;
use events::{Fingerprint, Metadata, StreamId};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use uuid::Uuid;

/// How long a repeated command finds its first answer, at least.
pub const WINDOW: TimeDelta = TimeDelta::hours(48);

/// A longer pause between two records ages the log by this much only.
const LONGEST_PAUSE: TimeDelta = TimeDelta::minutes(5);

/// An applied command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The stream it changed.
    pub stream: StreamId,
    /// The fingerprint of its HTTP request.
    pub fingerprint: Fingerprint,
    /// The version of the last event it appended.
    pub version: u64,
}

/// Whether a client may repeat this command: it has a key and a fingerprint.
pub fn is_repeatable(metadata: &Metadata) -> bool {
    metadata.command_id.get_version_num() == 5 && metadata.fingerprint != Fingerprint::default()
}

/// The commands applied within the window.
#[derive(Clone, Debug, Default)]
pub struct Dedupe {
    applied: FxHashMap<Uuid, Applied>,
    /// The commands, each with the age of the log when it was applied, the oldest first.
    order: VecDeque<(TimeDelta, Uuid)>,
    age: TimeDelta,
}

impl Dedupe {
    /// Ages the log: the next record is `elapsed` of log time later than the one before it.
    pub fn pass(&mut self, elapsed: TimeDelta) {
        self.age += elapsed.clamp(TimeDelta::zero(), LONGEST_PAUSE);
    }

    /// Remembers an applied command and forgets those that are older than the window.
    pub fn note(&mut self, command_id: Uuid, applied: Applied) {
        if self.applied.insert(command_id, applied).is_none() {
            self.order.push_back((self.age, command_id));
        }
        while let Some(&(then, oldest)) = self.order.front() {
            if self.age - then <= WINDOW {
                break;
            }
            self.order.pop_front();
            self.applied.remove(&oldest);
        }
    }

    /// The age of the log.
    pub fn age(&self) -> TimeDelta {
        self.age
    }

    /// Makes the log this old, to restore what [`iter`](Self::iter) returned.
    pub fn set_age(&mut self, age: TimeDelta) {
        self.age = age;
    }

    /// The number of commands it remembers.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// The commands, oldest first, each with the age of the log when it was applied.
    pub fn iter(&self) -> impl Iterator<Item = (TimeDelta, Uuid, Applied)> {
        self.order.iter().filter_map(|&(age, id)| Some((age, id, self.find(id)?)))
    }

    /// The command, if it was applied within the window.
    pub fn find(&self, command_id: Uuid) -> Option<Applied> {
        self.applied.get(&command_id).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(version: u64) -> Applied {
        let (stream, fingerprint) = (StreamId::order(Uuid::nil()), Fingerprint([1; 16]));
        Applied { stream, fingerprint, version }
    }

    /// A record every minute for so many hours.
    fn pass(dedupe: &mut Dedupe, hours: i64) {
        (0..hours * 60).for_each(|_| dedupe.pass(TimeDelta::minutes(1)));
    }

    #[test]
    fn a_command_is_known_for_the_window_only() {
        let mut dedupe = Dedupe::default();
        dedupe.note(Uuid::from_u128(1), applied(1));
        pass(&mut dedupe, 48);
        dedupe.note(Uuid::from_u128(2), applied(2));
        assert_eq!(dedupe.find(Uuid::from_u128(1)), Some(applied(1)));
        pass(&mut dedupe, 1);
        dedupe.note(Uuid::from_u128(3), applied(3));
        assert_eq!(dedupe.find(Uuid::from_u128(1)), None);
        assert_eq!(dedupe.find(Uuid::from_u128(2)), Some(applied(2)));
    }

    #[test]
    fn a_clock_that_jumps_days_ahead_forgets_nothing() {
        let mut dedupe = Dedupe::default();
        dedupe.note(Uuid::from_u128(1), applied(1));
        pass(&mut dedupe, 47);
        dedupe.pass(TimeDelta::days(400));
        dedupe.note(Uuid::from_u128(2), applied(2));
        assert_eq!(dedupe.find(Uuid::from_u128(1)), Some(applied(1)));
    }
}
