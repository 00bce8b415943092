//! Pauses between attempts.

use events::Environment;
use std::time::Duration;

/// Growing pauses between attempts, without a limit on the number of attempts.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    tries: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(20);
    const LONGEST: Duration = Duration::from_secs(3);

    /// Pauses for twice as long as the last time, minus a random part of up to a half.
    pub async fn rest(&mut self, environment: &dyn Environment) {
        let longest = (Self::FIRST * (1 << self.tries.min(10))).min(Self::LONGEST);
        self.tries += 1;
        let half = longest / 2;
        let chance = environment.random() % u64::try_from(half.as_micros()).unwrap_or(1).max(1);
        environment.sleep(half + Duration::from_micros(chance)).await;
    }

    /// Starts from the shortest pause again, after a success.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}
