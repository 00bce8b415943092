//! Samples of what clients see during a measurement: all samples and, apart from them, those taken
//! while the host of a virtual machine took no processor time away (steal time).

use crate::measure::{latencies, record, stolen_time};
use anyhow::Result;
use hdrhistogram::Histogram;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::time;
use tokio_util::sync::CancellationToken;

/// A second counts as disturbed if the host took more than this part of the cores.
const DISTURBED: f64 = 0.05;

/// Latencies of a measurement.
pub struct Samples {
    /// Latencies of queries.
    pub queries: Histogram<u64>,
    /// Latencies of orders, from the request to the confirmation.
    pub orders: Histogram<u64>,
    /// Time until a read model shows everything that was acknowledged.
    pub lag: Histogram<u64>,
    /// Number of whole seconds measured.
    pub seconds: u32,
}

impl Samples {
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

/// The samples of one measurement.
pub struct Window {
    /// All samples.
    pub all: Samples,
    /// The samples that began and ended in undisturbed seconds.
    pub undisturbed: Samples,
    /// The samples of the current second, which count as undisturbed if the second ends
    /// undisturbed.
    current: Samples,
    undisturbed_since: Option<Instant>,
    /// Orders whose outcome is unknown.
    pub in_doubt: u64,
}

impl Window {
    fn new(undisturbed_since: Option<Instant>) -> Result<Self> {
        let (all, undisturbed, current) = (Samples::new()?, Samples::new()?, Samples::new()?);
        Ok(Self { all, undisturbed, current, undisturbed_since, in_doubt: 0 })
    }

    fn end_second(&mut self, began: Instant, undisturbed: bool) -> Result<()> {
        let ended = std::mem::replace(&mut self.current, Samples::new()?);
        self.all.seconds += 1;
        if !undisturbed {
            self.undisturbed_since = None;
        } else if self.undisturbed_since.is_some() {
            self.undisturbed.add(&Samples { seconds: 1, ..ended })?;
        } else {
            self.undisturbed_since = Some(began);
        }
        Ok(())
    }
}

/// Collects the samples of all clients. Clones share one window.
#[derive(Clone)]
pub struct Recorder(Arc<Mutex<Window>>);

impl Recorder {
    /// Makes an empty recorder.
    ///
    /// # Errors
    /// Never.
    pub fn new() -> Result<Self> {
        Ok(Self(Arc::new(Mutex::new(Window::new(None)?))))
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the latency of an operation that began at `began` and has just ended.
    pub fn record(&self, of: impl Fn(&mut Samples) -> &mut Histogram<u64>, began: Instant) {
        let (mut window, took) = (self.window(), began.elapsed());
        record(of(&mut window.all), took);
        if window.undisturbed_since.is_some_and(|since| since <= began) {
            record(of(&mut window.current), took);
        }
    }

    /// Waits until there are undisturbed samples of `measured` seconds, or ten times that time is
    /// over.
    pub async fn until_enough(&self, measured: Duration) {
        let began = Instant::now();
        let undisturbed = || Duration::from_secs(self.window().undisturbed.seconds.into());
        while undisturbed() < measured && began.elapsed() < measured * 10 {
            time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Takes the samples since the last call.
    ///
    /// # Errors
    /// Never.
    pub fn take(&self) -> Result<Window> {
        let mut window = self.window();
        let new = Window::new(window.undisturbed_since)?;
        Ok(std::mem::replace(&mut *window, new))
    }

    /// Counts an order whose outcome is unknown.
    pub fn count_in_doubt(&self) {
        self.window().in_doubt += 1;
    }

    /// Ends a window's second each second, and marks it as disturbed if the host took processor
    /// time away. Samples of a disturbed second show the host as much as the program.
    ///
    /// # Errors
    /// When the number of cores is unknown.
    pub async fn watch_the_host(self, ending: CancellationToken) -> Result<()> {
        let cores = u32::try_from(std::thread::available_parallelism()?.get())?;
        let mut before = stolen_time();
        while !ending.is_cancelled() {
            let began = Instant::now();
            time::sleep(Duration::from_secs(1)).await;
            let now = stolen_time();
            let stolen = now.saturating_sub(before) / cores;
            self.window().end_second(began, stolen <= began.elapsed().mul_f64(DISTURBED))?;
            before = now;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_that_began_in_a_disturbed_second_is_not_an_undisturbed_sample() {
        let (recorder, start) = (Recorder::new().unwrap(), Instant::now());
        let second = |began, undisturbed| recorder.window().end_second(began, undisturbed).unwrap();
        let see = |began| recorder.record(|samples| &mut samples.lag, began);
        // It is not known yet whether this second is undisturbed.
        see(start);
        second(start, true);
        let later = start + Duration::from_nanos(1);
        see(later);
        second(later, true);
        // This operation ends only after its second.
        see(later);
        second(later, false);
        see(later);
        second(later, true);
        let Window { all, undisturbed, .. } = recorder.take().unwrap();
        assert_eq!((all.lag.len(), all.seconds), (4, 4));
        assert_eq!((undisturbed.lag.len(), undisturbed.seconds), (1, 1));
    }
}
