//! The commands that have been applied. They are known from the log, so a retry finds its first
//! answer after any crash.
//!
//! The command that created a stream is remembered for ever, in the stream. Other commands under a
//! client's key are remembered for [`WINDOW`] of log time, so a replay forgets the same ones. A
//! client cannot repeat a command without a key, so those are not remembered.

use chrono::TimeDelta;
use events::{Fingerprint, Metadata, StreamId, Timestamp};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use uuid::Uuid;

/// How long a repeated command finds its first answer, in log time.
pub const WINDOW: TimeDelta = TimeDelta::hours(48);

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
    /// The commands in order of log time, the next to be forgotten first.
    order: VecDeque<(Timestamp, Uuid)>,
}

impl Dedupe {
    /// Remembers an applied command and forgets those that are older than the window.
    pub fn note(&mut self, time: Timestamp, command_id: Uuid, applied: Applied) {
        if self.applied.insert(command_id, applied).is_none() {
            self.order.push_back((time, command_id));
        }
        while let Some(&(then, oldest)) = self.order.front() {
            if time - then <= WINDOW {
                break;
            }
            self.order.pop_front();
            self.applied.remove(&oldest);
        }
    }

    /// The number of commands it remembers.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// The commands in order of log time. Noting them in this order gives the same memory.
    pub fn iter(&self) -> impl Iterator<Item = (Timestamp, Uuid, Applied)> {
        self.order.iter().filter_map(|&(time, id)| Some((time, id, self.find(id)?)))
    }

    /// The command, if it was applied within the window.
    pub fn find(&self, command_id: Uuid) -> Option<Applied> {
        self.applied.get(&command_id).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_known_for_the_window_of_log_time_only() {
        let at = |hours: i64| Timestamp::from_timestamp(hours * 3600, 0).unwrap();
        let applied = |version| Applied {
            stream: StreamId::order(Uuid::nil()),
            fingerprint: Fingerprint([1; 16]),
            version,
        };
        let mut dedupe = Dedupe::default();
        dedupe.note(at(0), Uuid::from_u128(1), applied(1));
        dedupe.note(at(48), Uuid::from_u128(2), applied(2));
        assert_eq!(dedupe.find(Uuid::from_u128(1)), Some(applied(1)));
        dedupe.note(at(49), Uuid::from_u128(3), applied(3));
        assert_eq!(dedupe.find(Uuid::from_u128(1)), None);
        assert_eq!(dedupe.find(Uuid::from_u128(2)), Some(applied(2)));
    }
}
