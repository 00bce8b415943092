//! What all aggregates have in common.

use chrono::serde::ts_microseconds;
use events::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The place of an event in its stream and in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The event's version in its stream, from 1.
    pub version: u64,
    /// The event's log time, which never decreases within a partition.
    pub time: Timestamp,
}

/// The version and times of an aggregate as clients see them. Bookkeeping events do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// The stream version of the last event that changed what clients see; 0 if there is none.
    pub version: u64,
    /// The time of the first such event.
    #[serde(with = "ts_microseconds")]
    pub created_at: Timestamp,
    /// The time of the last such event.
    #[serde(with = "ts_microseconds")]
    pub updated_at: Timestamp,
}

impl Shown {
    /// Records an event that changes what clients see.
    pub(crate) fn note(&mut self, at: At) {
        if self.version == 0 {
            self.created_at = at.time;
        }
        self.version = at.version;
        self.updated_at = at.time;
    }
}

/// Decides commands for one stream and folds its events. Both are pure and synchronous. `Default`
/// is the state of a stream without events. Clones are cheap: whatever grows is shared.
pub trait Aggregate: Clone + Default + Send + Sync + 'static {
    /// The commands it decides.
    type Command;
    /// The events of its stream.
    type Event;
    /// Why it refuses a command.
    type Refusal;

    /// The events that `command` causes at log time `now`, which is not before the last event's. An
    /// empty list means that everything the command asks for is already so.
    fn decide(
        &self,
        command: &Self::Command,
        now: Timestamp,
    ) -> Result<Vec<Self::Event>, Self::Refusal>;

    /// Applies an event. It never fails: history is never refused.
    fn evolve(&mut self, event: &Self::Event, at: At);

    /// Drops what no later decision needs. The shard calls it after the answers have taken their
    /// own copy of the state. It changes neither decisions nor what is owed.
    fn compact(&mut self) {}
}

/// Identifies an effect among those of its stream. It stays the same while the effect is owed: only
/// an event raises the ordinal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EffectId {
    /// The name of the effect.
    pub name: &'static str,
    /// The attempt, from 1; 0 for an effect that has only one.
    pub ordinal: u32,
}

impl fmt::Display for EffectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ordinal {
            0 => f.write_str(self.name),
            ordinal => write!(f, "{}/{ordinal}", self.name),
        }
    }
}

/// Converts the body of a command into the `Command` enum that it belongs to.
macro_rules! into_command {
    ($($variant:ident),+) => {
        $crate::aggregate::into_command!($($variant => $variant),+);
    };
    ($($body:ident => $variant:ident),+) => {
        $(impl From<$body> for Command {
            fn from(command: $body) -> Self { Self::$variant(command) }
        })+
    };
}
pub(crate) use into_command;

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests {
    use super::EffectId;

    #[test]
    fn an_effect_is_named_with_its_ordinal() {
        assert_eq!(EffectId { name: "capture", ordinal: 1 }.to_string(), "capture/1");
        assert_eq!(EffectId { name: "open", ordinal: 0 }.to_string(), "open");
    }
}
