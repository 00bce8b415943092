//! What clients see while something goes on, all of it and apart what they see while the machine has its cores for itself.

use crate::measure::{latencies, record, stolen_time};
use anyhow::Result;
use hdrhistogram::Histogram;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::time;
use tokio_util::sync::CancellationToken;

/// A second counts as disturbed if a host took more of the cores than this.
const DISTURBED: f64 = 0.05;

/// What is seen while something goes on.
pub struct Sight {
    /// Of queries.
    pub queries: Histogram<u64>,
    /// From the order to its confirmation.
    pub orders: Histogram<u64>,
    /// Until what is acknowledged can be read.
    pub lag: Histogram<u64>,
    /// Whole ones.
    pub seconds: u32,
}

impl Sight {
    fn new() -> Result<Self> {
        let (queries, orders, lag) = (latencies()?, latencies()?, latencies()?);
        Ok(Self { queries, orders, lag, seconds: 0 })
    }

    fn add(&mut self, other: &Self) -> Result<()> {
        self.queries.add(&other.queries)?;
        self.orders.add(&other.orders)?;
        self.lag.add(&other.lag)?;
        self.seconds += other.seconds;
        Ok(())
    }
}

/// What was seen until somebody asked.
pub struct Kept {
    /// All.
    pub all: Sight,
    /// What of it the machine had its cores for itself for, from beginning to end.
    pub undisturbed: Sight,
    /// Of this second, if that will have been undisturbed too.
    perhaps: Sight,
    undisturbed_since: Option<Instant>,
    /// Orders whose outcome is unknown.
    pub in_doubt: u64,
}

impl Kept {
    fn new(undisturbed_since: Option<Instant>) -> Result<Self> {
        let (all, undisturbed, perhaps) = (Sight::new()?, Sight::new()?, Sight::new()?);
        Ok(Self { all, undisturbed, perhaps, undisturbed_since, in_doubt: 0 })
    }

    fn end_second(&mut self, began: Instant, undisturbed: bool) -> Result<()> {
        let ended = std::mem::replace(&mut self.perhaps, Sight::new()?);
        self.all.seconds += 1;
        if !undisturbed {
            self.undisturbed_since = None;
        } else if self.undisturbed_since.is_some() {
            self.undisturbed.add(&Sight { seconds: 1, ..ended })?;
        } else {
            self.undisturbed_since = Some(began);
        }
        Ok(())
    }
}

/// Where clients put what they see. Clones share it.
#[derive(Clone)]
pub struct Seen(Arc<Mutex<Kept>>);

impl Seen {
    /// Nothing yet.
    ///
    /// # Errors
    /// Never.
    pub fn new() -> Result<Self> {
        Ok(Self(Arc::new(Mutex::new(Kept::new(None)?))))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// That something ended which began then.
    pub fn see(&self, of: impl Fn(&mut Sight) -> &mut Histogram<u64>, began: Instant) {
        let (mut kept, took) = (self.kept(), began.elapsed());
        record(of(&mut kept.all), took);
        if kept.undisturbed_since.is_some_and(|since| since <= began) {
            record(of(&mut kept.perhaps), took);
        }
    }

    /// Until something was seen undisturbed for so long, within reason.
    pub async fn for_a_while(&self, measured: Duration) {
        let began = Instant::now();
        let undisturbed = || Duration::from_secs(self.kept().undisturbed.seconds.into());
        while undisturbed() < measured && began.elapsed() < measured * 10 {
            time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// What was seen since the last time.
    ///
    /// # Errors
    /// Never.
    pub fn take(&self) -> Result<Kept> {
        let mut kept = self.kept();
        let new = Kept::new(kept.undisturbed_since)?;
        Ok(std::mem::replace(&mut *kept, new))
    }

    /// That nobody knows what became of an order.
    pub fn doubt(&self) {
        self.kept().in_doubt += 1;
    }

    /// Tells the seconds in which a host took cores away from those without: what is seen then is the host as much as the program.
    ///
    /// # Errors
    /// When the system does not tell how many cores there are.
    pub async fn watch_the_host(self, ending: CancellationToken) -> Result<()> {
        let cores = u32::try_from(std::thread::available_parallelism()?.get())?;
        let mut before = stolen_time();
        while !ending.is_cancelled() {
            let began = Instant::now();
            time::sleep(Duration::from_secs(1)).await;
            let now = stolen_time();
            let stolen = now.saturating_sub(before) / cores;
            self.kept().end_second(began, stolen <= began.elapsed().mul_f64(DISTURBED))?;
            before = now;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_began_in_a_disturbed_second_is_not_seen_undisturbed() {
        let (seen, start) = (Seen::new().unwrap(), Instant::now());
        let second = |began, undisturbed| seen.kept().end_second(began, undisturbed).unwrap();
        let see = |began| seen.see(|sight| &mut sight.lag, began);
        // Nobody knows yet what this second is.
        see(start);
        second(start, true);
        let later = start + Duration::from_nanos(1);
        see(later);
        second(later, true);
        // It is not over before the second is.
        see(later);
        second(later, false);
        see(later);
        second(later, true);
        let Kept { all, undisturbed, .. } = seen.take().unwrap();
        assert_eq!((all.lag.len(), all.seconds), (4, 4));
        assert_eq!((undisturbed.lag.len(), undisturbed.seconds), (1, 1));
    }
}
