//! Closed loops: each client starts its next operation when the last one is answered.

use crate::observed::Appended;
use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use std::time::Duration;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// The longest latency recorded, in µs; latencies are kept with three significant digits.
const LONGEST_US: u64 = 60_000_000;

/// The number of clients and the duration of a run.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Concurrent clients.
    pub clients: usize,
    /// Time before the measurement, in which caches, connections and lanes warm up.
    pub warm_up: Duration,
    /// Measured time.
    pub measured: Duration,
}

/// The result of a run, for its measured time.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Operations answered.
    pub operations: u64,
    /// The measured time.
    pub took: Duration,
    /// Latencies of the operations, in µs; `None` if single operations are not timed.
    pub latency: Option<Histogram<u64>>,
    /// Events and batches appended to the log in this time.
    pub appended: Appended,
    /// Processor time of this process in this time, including its clients; zero if the system does
    /// not report it.
    pub cpu: Duration,
}

impl Measured {
    /// Operations per second.
    pub fn per_second(&self) -> f64 {
        rate(self.operations, self.took)
    }

    /// Events per second.
    pub fn events_per_second(&self) -> f64 {
        rate(self.appended.events, self.took)
    }

    /// The latency at a quantile from 0 to 1.
    pub fn latency_at(&self, quantile: f64) -> Option<Duration> {
        let latency = self.latency.as_ref()?;
        Some(Duration::from_micros(latency.value_at_quantile(quantile)))
    }
}

/// The rate of `count` in the time `took`, per second.
#[allow(clippy::cast_precision_loss, reason = "rates are printed with a few digits")]
pub fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// An empty histogram of latencies.
///
/// # Errors
/// Never with these bounds.
pub fn latencies() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, LONGEST_US, 3)?)
}

/// Records a latency in a histogram.
pub fn record(latency: &mut Histogram<u64>, took: Duration) {
    latency.saturating_record(u64::try_from(took.as_micros()).unwrap_or(LONGEST_US));
}

/// Runs `step` in a closed loop for each client, and measures. `appended` returns what was appended
/// to the log so far.
///
/// # Errors
/// The first error of a step ends the run, so that a failed operation is never counted as a fast
/// one.
pub async fn closed_loop<Step, Stepping>(
    load: Load,
    appended: impl AsyncFn() -> Result<Appended>,
    step: Step,
) -> Result<Measured>
where
    Step: Fn(usize) -> Stepping + Clone + Send + 'static,
    Stepping: Future<Output = Result<()>> + Send + 'static,
{
    let start = Instant::now() + load.warm_up;
    let end = start + load.measured;
    let mut clients = JoinSet::new();
    for client in 0..load.clients {
        clients.spawn(run_client(client, start, end, step.clone()));
    }
    sleep_until(start).await;
    let (began, cpu, before) = (Instant::now(), cpu_time(), appended().await?);
    sleep_until(end).await;
    let (took, cpu, after) = (began.elapsed(), cpu_time().saturating_sub(cpu), appended().await?);

    let mut latency = latencies()?;
    while let Some(client) = clients.join_next().await {
        latency.add(client.context("a client panicked")??)?;
    }
    Ok(Measured {
        operations: latency.len(),
        took,
        latency: Some(latency),
        appended: after.since(before),
        cpu,
    })
}

async fn run_client<Step, Stepping>(
    client: usize,
    start: Instant,
    end: Instant,
    step: Step,
) -> Result<Histogram<u64>>
where
    Step: Fn(usize) -> Stepping,
    Stepping: Future<Output = Result<()>>,
{
    let mut latency = latencies()?;
    let mut began = Instant::now();
    while began < end {
        step(client).await?;
        let answered = Instant::now();
        if answered >= start && answered < end {
            record(&mut latency, answered - began);
        }
        began = answered;
    }
    Ok(latency)
}

/// Processor time of this process so far. Linux reports it in hundredths of a second.
pub fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field, in brackets, may contain blanks. After it, user time is the 12th field and
    // system time the 13th.
    ticks(stat.rsplit_once(')').map_or("", |(_, fields)| fields), 11, 2)
}

/// The steal time of a virtual machine so far, summed over all cores: the time in which a core had
/// work but the host did not run it.
pub fn stolen_time() -> Duration {
    // The first line sums all cores; steal time is the eighth field after the name (`man 5
    // proc_stat`).
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    ticks(stat.lines().next().unwrap_or_default(), 8, 1)
}

/// The sum of some fields, which are in hundredths of a second.
fn ticks(fields: &str, from: usize, count: usize) -> Duration {
    let fields = fields.split_whitespace().skip(from).take(count);
    Duration::from_millis(fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * 10)
}

/// The value of a metric without labels, in the text that the program's `/metrics` answers; 0 if it is missing.
pub fn metric(metrics: &str, name: &str) -> u64 {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
    metrics.lines().find_map(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    fn load(clients: usize) -> Load {
        let (warm_up, measured) = (Duration::from_millis(20), Duration::from_millis(100));
        Load { clients, warm_up, measured }
    }

    #[tokio::test]
    async fn only_the_measured_time_counts() {
        let steps = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&steps);
        let measured = closed_loop(
            load(2),
            async || Ok(Appended::default()),
            move |_| {
                counted.fetch_add(1, Ordering::Relaxed);
                async {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    Ok(())
                }
            },
        )
        .await
        .unwrap();
        assert!(measured.operations > 0 && measured.operations < steps.load(Ordering::Relaxed));
        assert!(measured.latency_at(0.5).unwrap() >= Duration::from_millis(1));
        assert!(measured.per_second() < 2_000.0);
    }

    #[tokio::test]
    async fn a_failed_operation_ends_the_run() {
        let failing = closed_loop(
            load(1),
            async || Ok(Appended::default()),
            |_| async { anyhow::bail!("refused") },
        );
        assert_eq!(failing.await.unwrap_err().to_string(), "refused");
    }

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let metrics = "# TYPE a counter\nab 7\na_total 3\na 12\n";
        assert_eq!(metric(metrics, "a"), 12);
        assert_eq!(metric(metrics, "b"), 0);
    }
}
