//! Rests between tries.

use events::Environment;
use std::time::Duration;

/// Growing rests between tries, without end.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    tries: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(20);
    const LONGEST: Duration = Duration::from_secs(3);

    /// Rests: twice as long as the last time, less up to a half by chance.
    pub async fn rest(&mut self, environment: &dyn Environment) {
        let longest = (Self::FIRST * (1 << self.tries.min(10))).min(Self::LONGEST);
        self.tries += 1;
        let half = longest / 2;
        let chance = environment.random() % u64::try_from(half.as_micros()).unwrap_or(1).max(1);
        environment.sleep(half + Duration::from_micros(chance)).await;
    }

    /// All went well.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}
