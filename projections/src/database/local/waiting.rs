//! A wait with a limit that says so when it is long.

use std::time::Duration;

use tokio::time::Instant;

/// A wait is reported when it has lasted for this long, and again after each such time.
const LONG: Duration = Duration::from_secs(5);

/// A wait for the server.
pub(super) struct Waiting {
    begun: Instant,
    reported: Instant,
    /// How long it may last.
    pub(super) most: Duration,
}

impl Waiting {
    pub(super) fn for_at_most(most: Duration) -> Self {
        let now = Instant::now();
        Self { begun: now, reported: now, most }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    pub(super) fn is_over(&self) -> bool {
        self.elapsed() >= self.most
    }

    /// Logs what the wait is for, if it is long. To be called at each check.
    pub(super) fn report(&mut self, reason: &str) {
        if self.reported.elapsed() >= LONG {
            self.reported = Instant::now();
            let (seconds, at_most) = (self.elapsed().as_secs(), self.most.as_secs());
            tracing::info!(reason, seconds, at_most, "waiting for the private database");
        }
    }
}
