//! When pending orders expire.

use events::{Environment, Timestamp};
use rustc_hash::FxHashMap;
use std::{collections::BTreeSet, time::Duration};
use uuid::Uuid;

/// The pending orders of a partition, by the moment at which they expire.
///
/// A deadline is a moment of the wall clock, and a wall clock can be wrong. So it is compared with the
/// wall clock only once, when this process first sees the order. From then on the process's own clock
/// counts, which nobody sets. And no order waits longer than any order may, from that moment on: one
/// that was placed while the clock was days ahead has a deadline that is days ahead, too.
pub struct Deadlines {
    due: BTreeSet<(Duration, Uuid)>,
    of: FxHashMap<Uuid, Duration>,
    /// The longest time that an order may stay pending.
    longest: Duration,
}

impl Deadlines {
    pub fn new(longest: Duration) -> Self {
        Self { due: BTreeSet::new(), of: FxHashMap::default(), longest }
    }

    /// Notes the deadline of an order; `None` if it cannot expire any more.
    pub fn note(&mut self, order: Uuid, deadline: Option<Timestamp>, clock: &dyn Environment) {
        if let Some(before) = self.of.remove(&order) {
            self.due.remove(&(before, order));
        }
        let Some(deadline) = deadline else { return };
        let left = (deadline - clock.now()).to_std().unwrap_or_default().min(self.longest);
        let due = clock.monotonic().saturating_add(left);
        self.of.insert(order, due);
        self.due.insert((due, order));
    }

    /// When the next order expires, on the process's own clock.
    pub fn next(&self) -> Option<Duration> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Takes an order that expires at this moment of the process's own clock.
    pub fn take_due(&mut self, now: Duration) -> Option<Uuid> {
        let &(due, order) = self.due.first().filter(|(due, _)| *due <= now)?;
        self.due.remove(&(due, order));
        self.of.remove(&order);
        Some(order)
    }
}
