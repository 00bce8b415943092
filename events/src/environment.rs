//! Access to the outside world: time, ids, random numbers and tasks.
//!
//! The write side takes all of these from an [`Environment`], so that a simulation can run all of
//! it.

use futures::future::BoxFuture;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// A moment in UTC, to the microsecond.
pub type Timestamp = chrono::DateTime<chrono::Utc>;

/// Clock, ids, random numbers and tasks.
pub trait Environment: Send + Sync + 'static {
    /// The wall clock, to the microsecond.
    fn now(&self) -> Timestamp;

    /// Time since a fixed moment, from a clock that never runs backwards.
    fn monotonic(&self) -> Duration;

    /// Resolves after `duration`.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;

    /// A new `UUIDv7`.
    fn uuid(&self) -> Uuid;

    /// A random number, for jitter.
    fn random(&self) -> u64;

    /// A random part of `most`, so that tasks that failed together do not retry together.
    fn jitter(&self, most: Duration) -> Duration {
        // 16 random bits: they fit into the type and are fine-grained enough.
        most / (1 << 16) * u32::from((self.random() >> 48) as u16)
    }

    /// Runs a task concurrently with the others.
    fn spawn(&self, task: BoxFuture<'static, ()>);
}

/// The real environment: the system's clocks and random numbers, tokio's timers and tasks.
#[derive(Debug)]
pub struct System {
    started: Instant,
}

impl System {
    /// Makes one whose monotonic clock starts now.
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the clocks")]
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Default for System {
    fn default() -> Self {
        Self::new()
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the one place that reads the clocks, makes ids and starts tasks"
)]
impl Environment for System {
    fn now(&self) -> Timestamp {
        to_micros(chrono::Utc::now())
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn uuid(&self) -> Uuid {
        Uuid::now_v7()
    }

    fn random(&self) -> u64 {
        // Only jitter uses it, so any value will do when the system has no random number.
        getrandom::u64().unwrap_or_default()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }
}

/// Cuts a time to whole microseconds, the precision of the log.
pub fn to_micros(time: Timestamp) -> Timestamp {
    Timestamp::from_timestamp_micros(time.timestamp_micros()).unwrap_or(time)
}
