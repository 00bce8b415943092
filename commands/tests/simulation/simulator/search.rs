//! Runs one seed after another, on every core.

use super::{
    plan::Plan,
    run::{Report, run},
};
use std::{
    collections::BTreeMap,
    ops::AddAssign,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

/// The counts of all runs together.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub runs: u64,
    pub steps: u64,
    pub simulated: Duration,
    pub commands: u64,
    /// Events by type.
    pub events: BTreeMap<String, u64>,
    /// Acts of the clients and the world by kind.
    pub acts: BTreeMap<String, u64>,
}

impl AddAssign<&Report> for Tally {
    fn add_assign(&mut self, report: &Report) {
        self.runs += 1;
        self.steps += report.steps;
        self.simulated += report.simulated;
        self.commands += report.commands;
        let add = |all: &mut BTreeMap<String, u64>, some: &BTreeMap<String, u64>| {
            for (kind, count) in some {
                *all.entry(kind.clone()).or_default() += count;
            }
        };
        add(&mut self.events, &report.events);
        add(&mut self.acts, &report.acts);
    }
}

/// A run that broke an invariant.
pub struct Found {
    pub seed: u64,
    pub report: Report,
}

struct Search<S> {
    seeds: S,
    tally: Tally,
    found: Option<Found>,
}

/// Runs `seeds` until one breaks an invariant. Reports the progress after each run.
pub fn search(
    seeds: impl Iterator<Item = u64> + Send,
    told: impl Fn(&Tally) + Sync,
) -> (Tally, Option<Found>) {
    let search = Mutex::new(Search { seeds, tally: Tally::default(), found: None });
    let work = || {
        loop {
            let mut at = search.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(seed) = at.seeds.next().filter(|_| at.found.is_none()) else { return };
            drop(at);
            let report = run(&Plan::of(seed), false);
            let mut at = search.lock().unwrap_or_else(PoisonError::into_inner);
            at.tally += &report;
            told(&at.tally);
            if report.broken.is_some() {
                at.found.get_or_insert(Found { seed, report });
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let Search { tally, found, .. } = search.into_inner().unwrap_or_else(PoisonError::into_inner);
    (tally, found)
}
