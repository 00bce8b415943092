//! Rate limits: a token bucket for each principal or address.

use crate::problem::{Kind, Problem};
use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Shards of the map. Requests lock one of them only, so they seldom wait for each other.
const SHARDS: usize = 16;
/// Buckets in a shard at which it drops those that are full again.
const BUCKETS: usize = 4_096;

/// Limits requests a second, with a burst of twice that.
pub struct RateLimiter {
    per_second: f64,
    hasher: RandomState,
    shards: Vec<Mutex<HashMap<u64, Bucket>>>,
}

/// Tokens taken out of a bucket, as of a time.
#[derive(Clone, Copy)]
struct Bucket {
    taken: f64,
    at: Duration,
}

impl RateLimiter {
    /// Allows `per_second` requests a second; 0 for no limit.
    pub fn new(per_second: u32) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { per_second: f64::from(per_second), hasher: RandomState::new(), shards }
    }

    /// Counts a request of `principal`. `now` is the time of a monotonic clock.
    ///
    /// # Errors
    /// `rate-limited`, with the time to wait.
    pub fn take(&self, principal: &impl std::hash::Hash, now: Duration) -> Result<(), Problem> {
        if self.per_second == 0.0 {
            return Ok(());
        }
        // Two principals with the same hash share a bucket. The hash is keyed with a secret, so
        // nobody can provoke that.
        let key = self.hasher.hash_one(principal);
        let shard = &self.shards[usize::try_from(key % SHARDS as u64).unwrap_or(0)];
        let mut buckets = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS && !buckets.contains_key(&key) {
            self.make_room(&mut buckets, now);
        }
        let bucket = buckets.entry(key).or_insert(Bucket { taken: 0.0, at: now });
        *bucket = Bucket { taken: self.left(*bucket, now), at: now.max(bucket.at) };
        let burst = self.per_second * 2.0;
        if bucket.taken + 1.0 > burst {
            let seconds = (bucket.taken + 1.0 - burst) / self.per_second;
            let wait = Duration::from_secs_f64(seconds).as_secs() + 1;
            return Err(Problem::from(Kind::RateLimited).retry_after(wait));
        }
        bucket.taken += 1.0;
        Ok(())
    }

    /// The tokens still missing in a bucket at `now`.
    fn left(&self, bucket: Bucket, now: Duration) -> f64 {
        let passed = now.saturating_sub(bucket.at).as_secs_f64();
        (bucket.taken - passed * self.per_second).max(0.0)
    }

    /// Drops the buckets that are full again. If there are none, drops all buckets, which lets some
    /// callers make more requests than their limit.
    fn make_room(&self, buckets: &mut HashMap<u64, Bucket>, now: Duration) {
        buckets.retain(|_, bucket| self.left(*bucket, now) > 0.0);
        if buckets.len() >= BUCKETS {
            buckets.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(limiter: &RateLimiter, principal: &str, requests: usize, at_ms: u64) -> usize {
        let now = Duration::from_millis(at_ms);
        (0..requests).filter(|_| limiter.take(&principal, now).is_ok()).count()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let limiter = RateLimiter::new(10);
        assert_eq!(passed(&limiter, "ann", 50, 0), 20);
        assert_eq!(passed(&limiter, "bob", 5, 0), 5);
        assert_eq!(passed(&limiter, "ann", 50, 500), 5);
        assert_eq!(passed(&limiter, "ann", 50, 60_000), 20);
    }

    #[test]
    fn zero_is_no_limit() {
        assert_eq!(passed(&RateLimiter::new(0), "ann", 10_000, 0), 10_000);
    }

    #[test]
    fn memory_is_bounded() {
        let limiter = RateLimiter::new(1);
        for principal in 0..(SHARDS * BUCKETS * 2) {
            limiter.take(&principal, Duration::ZERO).unwrap();
        }
        let kept: usize = limiter.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert!(kept <= SHARDS * BUCKETS);
    }
}
