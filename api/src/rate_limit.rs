//! Rate limits: a token bucket for each principal or address, from which a request takes tokens by
//! what it costs.

use crate::problem::{Kind, Problem};
use axum::http::Method;
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

/// The tokens that a request to `route` takes: one for what reads or changes a few rows, and more
/// for what costs more.
pub fn cost(method: &Method, route: &str) -> u32 {
    match (method, route) {
        (&Method::GET, "/api/v1/search") => 20,
        (&Method::GET, "/api/v1/reports/sales" | "/metrics") => 10,
        _ => 1,
    }
}

/// Limits tokens: a rate, and a burst that may be taken at once.
pub struct RateLimiter {
    name: &'static str,
    per_second: f64,
    burst: f64,
    hasher: RandomState,
    shards: Vec<Mutex<HashMap<u64, Bucket>>>,
}

/// Tokens taken out of a bucket, as of a time.
#[derive(Clone, Copy)]
struct Bucket {
    taken: f64,
    at: Duration,
}

/// What is left in a bucket after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    name: &'static str,
    /// The tokens of a full bucket.
    quota: u64,
    /// Seconds in which an empty bucket fills up.
    window: u64,
    left: u64,
    /// Seconds until the bucket is full again.
    full_in: u64,
    /// Seconds until there are tokens for a request like the one that was refused.
    wait: Option<u64>,
}

impl Balance {
    /// Whether the request may go on.
    ///
    /// # Errors
    /// `rate-limited`, with the time to wait.
    pub fn allow(&self) -> Result<(), Problem> {
        let refused = |wait| Problem::from(Kind::RateLimited).retry_after(wait);
        self.wait.map_or(Ok(()), |wait| Err(refused(wait)))
    }

    /// The item of the field `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers).
    pub fn policy(&self) -> String {
        format!("\"{}\";q={};w={}", self.name, self.quota, self.window)
    }

    /// The item of the field `RateLimit`.
    pub fn state(&self) -> String {
        format!("\"{}\";r={};t={}", self.name, self.left, self.full_in)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "tokens are small and never negative"
)]
fn whole(tokens: f64) -> u64 {
    tokens as u64
}

impl RateLimiter {
    /// Allows `per_second` tokens a second, and twice as many at once; 0 for no limit. `name` tells
    /// the limit to clients.
    pub fn new(name: &'static str, per_second: u32) -> Self {
        Self::of(name, f64::from(per_second), f64::from(per_second) * 2.0)
    }

    /// Allows `per_minute` tokens a minute, and as many at once; 0 for no limit.
    pub fn per_minute(name: &'static str, per_minute: u32) -> Self {
        Self::of(name, f64::from(per_minute) / 60.0, f64::from(per_minute))
    }

    fn of(name: &'static str, per_second: f64, burst: f64) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { name, per_second, burst, hasher: RandomState::new(), shards }
    }

    /// Takes `cost` tokens, or a full bucket if it holds fewer. `now` is the time of a monotonic
    /// clock. `None` if there is no limit.
    pub fn take(
        &self,
        principal: &impl std::hash::Hash,
        cost: u32,
        now: Duration,
    ) -> Option<Balance> {
        if self.per_second == 0.0 {
            return None;
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
        let over = bucket.taken + f64::from(cost).min(self.burst) - self.burst;
        let wait = (over > 0.0).then(|| whole(over / self.per_second) + 1);
        if wait.is_none() {
            bucket.taken += f64::from(cost).min(self.burst);
        }
        Some(Balance {
            name: self.name,
            quota: whole(self.burst),
            window: whole((self.burst / self.per_second).round()),
            left: whole(self.burst - bucket.taken),
            full_in: whole((bucket.taken / self.per_second).ceil()),
            wait,
        })
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
        let take = || limiter.take(&principal, 1, now);
        (0..requests).filter(|_| take().is_none_or(|balance| balance.allow().is_ok())).count()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let limiter = RateLimiter::new("caller", 10);
        assert_eq!(passed(&limiter, "ann", 50, 0), 20);
        assert_eq!(passed(&limiter, "bob", 5, 0), 5);
        assert_eq!(passed(&limiter, "ann", 50, 500), 5);
        assert_eq!(passed(&limiter, "ann", 50, 60_000), 20);
    }

    #[test]
    fn what_costs_more_takes_more_and_says_what_is_left() {
        let limiter = RateLimiter::new("caller", 10);
        let take = |cost, at_ms| limiter.take(&"ann", cost, Duration::from_millis(at_ms)).unwrap();
        let first = take(15, 0);
        assert!(first.allow().is_ok());
        assert_eq!(first.policy(), "\"caller\";q=20;w=2");
        assert_eq!(first.state(), "\"caller\";r=5;t=2");
        let refused = take(15, 0);
        assert_eq!(refused.allow().unwrap_err().kind(), Kind::RateLimited);
        assert_eq!((refused.left, refused.wait), (5, Some(2)), "a refusal takes nothing");
        assert!(take(5, 0).allow().is_ok());
        // What costs more than a full bucket waits for a full one.
        assert!(take(200, 1_000).allow().is_err());
        assert!(take(200, 2_000).allow().is_ok());
    }

    #[test]
    fn a_search_costs_more_than_a_read() {
        assert!(cost(&Method::GET, "/api/v1/search") > cost(&Method::GET, "/api/v1/products"));
    }

    #[test]
    fn a_limit_by_the_minute_fills_up_in_a_minute() {
        let limiter = RateLimiter::per_minute("registrations", 10);
        assert_eq!(passed(&limiter, "ann", 50, 0), 10);
        assert_eq!(passed(&limiter, "ann", 50, 6_500), 1);
        assert_eq!(passed(&limiter, "ann", 50, 70_000), 10);
    }

    #[test]
    fn zero_is_no_limit() {
        assert_eq!(passed(&RateLimiter::new("caller", 0), "ann", 10_000, 0), 10_000);
        let unlimited = RateLimiter::per_minute("registrations", 0);
        assert_eq!(passed(&unlimited, "ann", 10_000, 0), 10_000);
    }

    #[test]
    fn memory_is_bounded() {
        let limiter = RateLimiter::new("caller", 1);
        for principal in 0..(SHARDS * BUCKETS * 2) {
            limiter.take(&principal, 1, Duration::ZERO).unwrap().allow().unwrap();
        }
        let kept: usize = limiter.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert!(kept <= SHARDS * BUCKETS);
    }
}
