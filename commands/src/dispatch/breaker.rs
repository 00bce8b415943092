//! A circuit breaker: stops calls to a gateway or mail server that fails repeatedly, so that
//! effects back off instead of queueing for it.

use events::Environment;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// The breaker trips after this many failures in a row.
const THRESHOLD: u32 = 20;

/// How long a tripped breaker refuses calls before it lets one try.
const PAUSE: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Count {
    failures: u32,
    tripped_until: Duration,
}

/// A circuit breaker.
pub struct Breaker {
    environment: Arc<dyn Environment>,
    of: &'static str,
    count: Mutex<Count>,
}

/// The breaker has tripped.
#[derive(Debug, thiserror::Error)]
#[error("the breaker has tripped: too many calls in a row failed")]
pub struct Tripped;

impl Breaker {
    /// A breaker that lets calls through. `of` names the other side in log lines and metrics.
    pub fn new(environment: Arc<dyn Environment>, of: &'static str) -> Self {
        Self { environment, of, count: Mutex::default() }
    }

    /// Whether a call may be made. A tripped breaker lets one call through after each pause: that
    /// call starts the next pause.
    pub fn admit(&self) -> Result<(), Tripped> {
        let now = self.environment.monotonic();
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        if count.failures < THRESHOLD {
            return Ok(());
        }
        if now < count.tripped_until {
            metrics::counter!("orderlog_breaker_turned_away_total", "of" => self.of).increment(1);
            return Err(Tripped);
        }
        count.tripped_until = now + PAUSE;
        Ok(())
    }

    /// Records whether a call succeeded.
    pub fn note(&self, worked: bool) {
        let now = self.environment.monotonic();
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        if worked {
            if count.failures >= THRESHOLD {
                tracing::info!("the {} answers again: the breaker is reset", self.of);
                metrics::gauge!("orderlog_breaker_open", "of" => self.of).set(0);
            }
            count.failures = 0;
            return;
        }
        count.failures += 1;
        if count.failures == THRESHOLD {
            count.tripped_until = now + PAUSE;
            tracing::warn!(
                "the {} fails repeatedly: the breaker trips and refuses calls for a while",
                self.of
            );
            metrics::gauge!("orderlog_breaker_open", "of" => self.of).set(1);
            metrics::counter!("orderlog_breaker_opened_total", "of" => self.of).increment(1);
        }
    }
}
