//! Log time across the partitions of a process.

use events::Timestamp;
use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

/// The latest log time that this process has seen, in any partition.
///
/// Log time never runs backwards, so a clock that was once ahead leaves it ahead, and not in every
/// partition by as much. Whoever compares moments of two partitions, as a product does with the
/// last moment to reserve for an order, needs one log time for all of them. That is the wall clock
/// while it is not behind what was seen (a hybrid logical clock: Kulkarni and others, 2014).
#[derive(Debug, Default)]
pub(crate) struct LogClock {
    /// In microseconds since 1970.
    latest: AtomicI64,
}

impl LogClock {
    /// A record with this log time is in the log.
    pub(crate) fn observe(&self, time: Timestamp) {
        self.latest.fetch_max(time.timestamp_micros(), Ordering::AcqRel);
    }

    /// Log time when the wall clock says `now`.
    pub(crate) fn at(&self, now: Timestamp) -> Timestamp {
        let latest = Timestamp::from_timestamp_micros(self.latest.load(Ordering::Acquire));
        latest.map_or(now, |latest| latest.max(now))
    }

    /// How far log time is ahead of the wall clock, which says `now`.
    pub(crate) fn ahead_of(&self, now: Timestamp) -> Duration {
        (self.at(now) - now).to_std().unwrap_or_default()
    }
}
