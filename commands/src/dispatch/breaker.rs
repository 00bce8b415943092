//! Leaves a dead gateway, or mail server, alone for a while, so that what waits for it backs off instead of queueing at its door.

use events::Environment;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Failures in a row that open the breaker.
const THRESHOLD: u32 = 20;

/// How long it stays open before one call may try again.
const OPEN_FOR: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Count {
    failures: u32,
    open_until: Duration,
}

/// A circuit breaker.
pub struct Breaker {
    environment: Arc<dyn Environment>,
    of: &'static str,
    count: Mutex<Count>,
}

/// The breaker is open.
#[derive(Debug, thiserror::Error)]
#[error("it failed too often and is left alone for a while")]
pub struct Open;

impl Breaker {
    /// Closed: calls go through. `of` names in the log what is left alone.
    pub fn new(environment: Arc<dyn Environment>, of: &'static str) -> Self {
        Self { environment, of, count: Mutex::default() }
    }

    /// Whether a call may be made. After the pause, one may: it pushes the next one back by another pause.
    pub fn admit(&self) -> Result<(), Open> {
        let now = self.environment.monotonic();
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        if count.failures < THRESHOLD {
            return Ok(());
        }
        if now < count.open_until {
            metrics::counter!("orderlog_breaker_turned_away_total", "of" => self.of).increment(1);
            return Err(Open);
        }
        count.open_until = now + OPEN_FOR;
        Ok(())
    }

    /// Takes note of how a call went.
    pub fn note(&self, worked: bool) {
        let now = self.environment.monotonic();
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        if worked {
            if count.failures >= THRESHOLD {
                tracing::info!("the {} answers again", self.of);
                metrics::gauge!("orderlog_breaker_open", "of" => self.of).set(0);
            }
            count.failures = 0;
            return;
        }
        count.failures += 1;
        if count.failures == THRESHOLD {
            count.open_until = now + OPEN_FOR;
            tracing::warn!("the {} fails: leaving it alone for a while", self.of);
            metrics::gauge!("orderlog_breaker_open", "of" => self.of).set(1);
            metrics::counter!("orderlog_breaker_opened_total", "of" => self.of).increment(1);
        }
    }
}
