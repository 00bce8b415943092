//! The printed table and the verdict.

use super::{
    phase::Plan,
    shop::Seen,
    tally::{Counts, sum_of, total},
};
use crate::report::thousands;
use anyhow::Result;
use hdrhistogram::Histogram;
use std::time::Duration;

/// The head of the table.
pub const HEAD: &str = "\
| phase | seconds | read p50 ms | p99 ms | order p50 ms | p99 ms | failed | readyz | events | memory MiB | data MiB | processors | stranger |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|";

/// The most times that the latency of the good clients may grow.
const MOST: f64 = 2.0;

/// Bytes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size(pub u64);

/// The program at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct State {
    /// Resident memory of the program, without its PostgreSQL, in KiB.
    pub memory_kib: f64,
    /// The log.
    pub log: Size,
    /// The private PostgreSQL.
    pub postgres: Size,
    /// The whole data directory.
    pub data: Size,
    /// Events accepted so far.
    pub events: u64,
    /// Processor time so far, in seconds.
    pub cpu: f64,
    /// Requests of the stranger so far.
    pub requests: u64,
}

/// What was measured in a phase, or in several phases of the same sort.
pub struct Phase {
    /// What the phase is called.
    pub what: String,
    /// How long it took.
    pub took: Duration,
    /// What the good clients saw.
    pub seen: Seen,
    /// How often the program said that it is ready.
    pub ready: u64,
    /// How often it did not.
    pub unready: u64,
    /// The program before it.
    pub before: State,
    /// The program after it.
    pub after: State,
}

impl Phase {
    /// The line of the table.
    pub fn markdown(&self) -> String {
        let Self { what, took, seen, ready, unready, before, after } = self;
        let at = |latency, quantile| millis(latency, quantile).map_or("-".to_owned(), ms);
        format!(
            "| {what} | {:.0} | {} | {} | {} | {} | {} | {ready} of {} | {} | {:.0} | {:.0} | {:.2} | {} |",
            took.as_secs_f64(),
            at(&seen.reads, 0.5),
            at(&seen.reads, 0.99),
            at(&seen.orders, 0.5),
            at(&seen.orders, 0.99),
            seen.failed,
            ready + unready,
            thousands(after.events - before.events),
            after.memory_kib / 1024.0,
            mebibytes(after.data),
            (after.cpu - before.cpu) / took.as_secs_f64(),
            thousands(after.requests - before.requests),
        )
    }

    /// What the good clients saw in all phases of this name.
    fn seen_in(phases: &[Self], what: &str) -> Result<Seen> {
        let mut all = Seen::new()?;
        for phase in phases.iter().filter(|phase| phase.what == what) {
            all.add(&phase.seen)?;
        }
        Ok(all)
    }
}

/// The verdict on a run.
pub struct Verdict {
    /// What to print.
    pub lines: Vec<String>,
    /// Whether the program was ready whenever it was asked.
    pub always_ready: bool,
}

impl Verdict {
    /// The verdict on these phases, of a stranger who was told this. `last` is the program after
    /// the stranger has gone.
    ///
    /// # Errors
    /// Never.
    pub fn on(phases: &[Phase], told: &Counts, last: &State) -> Result<Self> {
        let mut lines = Vec::new();
        let alone = Phase::seen_in(phases, Plan::ALONE)?;
        let together = Phase::seen_in(phases, Plan::TOGETHER)?;
        lines.push(compared("read", &alone.reads, &together.reads));
        lines.push(compared("order", &alone.orders, &together.orders));
        let sum = |of: fn(&Phase) -> u64| phases.iter().map(of).sum::<u64>();
        let (ready, unready) = (sum(|phase| phase.ready), sum(|phase| phase.unready));
        lines.push(format!("readyz: {ready} of {} times 200", ready + unready));
        let asked = sum(|phase| phase.seen.reads.len() + phase.seen.orders.len());
        let failed = sum(|phase| phase.seen.failed);
        let failure = phases.iter().find_map(|phase| phase.seen.failure.as_deref());
        lines.push(format!(
            "good clients: {} requests, {failed} failed{}",
            thousands(asked + failed),
            failure.map_or_else(String::new, |failure| format!(", the first with: {failure:.300}")),
        ));
        lines.push(format!(
            "stranger: {} requests or connections, {} refused for a limit",
            thousands(total(told)),
            sum_of(told, "429"),
        ));
        for (act, outcomes) in told {
            let outcomes: Vec<String> = outcomes
                .iter()
                .map(|(what, count)| format!("{what} {}", thousands(*count)))
                .collect();
            lines.push(format!("  {act}: {}", outcomes.join(", ")));
        }
        lines.extend([Plan::ALONE, Plan::TOGETHER].map(|what| growth_in(phases, what)));
        if let Some(first) = phases.first() {
            lines.extend(growth(&first.before, last));
        }
        Ok(Self { lines, always_ready: unready == 0 })
    }
}

fn compared(what: &str, alone: &Histogram<u64>, together: &Histogram<u64>) -> String {
    let (Some(before), Some(with)) = (millis(alone, 0.99), millis(together, 0.99)) else {
        return format!("{what} p99: not measured");
    };
    let times = with / before;
    let met = if times <= MOST { "yes" } else { "no" };
    format!(
        "{what} p99: {} ms without the stranger, {} ms with it, {times:.2} times; at most doubled: {met}",
        ms(before),
        ms(with)
    )
}

/// What an accepted event cost in memory and on disk between two moments.
fn growth(before: &State, after: &State) -> Vec<String> {
    let events = after.events - before.events;
    let part = |what: &str, of: fn(&State) -> f64| {
        let (from, to) = (of(before), of(after));
        let each = each((to - from) * 1024.0 * 1024.0, events);
        format!("  {what}: {from:.1} to {to:.1} MiB{each}")
    };
    vec![
        format!("whole run: {} events accepted", thousands(events)),
        part("memory", |state| state.memory_kib / 1024.0),
        part("data", |state| mebibytes(state.data)),
        part("of it, the log", |state| mebibytes(state.log)),
        part("of it, PostgreSQL", |state| mebibytes(state.postgres)),
    ]
}

/// The same, summed over the phases of a name.
fn growth_in(phases: &[Phase], what: &str) -> String {
    let (mut events, mut memory_kib, mut data) = (0, 0.0, 0.0);
    for Phase { before, after, .. } in phases.iter().filter(|phase| phase.what == what) {
        events += after.events - before.events;
        memory_kib += after.memory_kib - before.memory_kib;
        data += mebibytes(after.data) - mebibytes(before.data);
    }
    format!(
        "{what}: {} events accepted, memory {:+.1} MiB{}, data {data:+.1} MiB{}",
        thousands(events),
        memory_kib / 1024.0,
        each(memory_kib * 1024.0, events),
        each(data * 1024.0 * 1024.0, events),
    )
}

fn each(bytes: f64, events: u64) -> String {
    match events {
        0 => String::new(),
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        events => format!(" ({:.0} bytes an event)", bytes / events as f64),
    }
}

/// The latency at a quantile, in ms; `None` if there is none.
#[expect(clippy::cast_precision_loss, reason = "latencies are far below 2^52 µs")]
fn millis(latency: &Histogram<u64>, quantile: f64) -> Option<f64> {
    (!latency.is_empty()).then(|| latency.value_at_quantile(quantile) as f64 / 1e3)
}

fn ms(latency: f64) -> String {
    format!("{latency:.1}")
}

#[expect(clippy::cast_precision_loss, reason = "files are far below 2^52 bytes")]
fn mebibytes(size: Size) -> f64 {
    size.0 as f64 / 1024.0 / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::record;

    fn phase(what: &str, read_ms: u64, unready: u64) -> Phase {
        let mut seen = Seen::new().unwrap();
        record(&mut seen.reads, Duration::from_millis(read_ms));
        record(&mut seen.orders, Duration::from_millis(10));
        let before = State { memory_kib: 1024.0, events: 10, ..State::default() };
        let after = State { memory_kib: 1034.0, events: 20, cpu: 0.5, ..before };
        let took = Duration::from_secs(1);
        Phase { what: what.to_owned(), took, seen, ready: 1, unready, before, after }
    }

    fn verdict(phases: &[Phase]) -> (String, bool) {
        let last = phases.last().unwrap().after;
        let verdict = Verdict::on(phases, &Counts::default(), &last).unwrap();
        (verdict.lines.join("\n"), verdict.always_ready)
    }

    #[test]
    fn a_latency_that_more_than_doubles_and_a_node_that_is_not_ready_are_told() {
        let (text, always_ready) =
            verdict(&[phase(Plan::ALONE, 10, 0), phase(Plan::TOGETHER, 21, 0)]);
        assert!(always_ready);
        assert!(text.contains("2.10 times; at most doubled: no"), "{text}");
        assert!(text.contains("1.00 times; at most doubled: yes"), "{text}");
        assert!(text.contains("(1024 bytes an event)"), "{text}");
        let (text, always_ready) = verdict(&[phase("cursors only", 10, 1)]);
        assert!(!always_ready && text.contains("readyz: 1 of 2 times 200"), "{text}");
    }

    #[test]
    fn a_line_has_as_many_cells_as_the_head() {
        let cells = |line: &str| line.matches('|').count();
        let line = phase(Plan::ALONE, 10, 0).markdown();
        assert_eq!(cells(&line), cells(HEAD.lines().next().unwrap()), "{line}");
    }
}
