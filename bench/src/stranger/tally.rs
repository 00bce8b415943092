//! What the stranger was told.

use super::act::Act;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// The number of answers of each kind to each act. Clones share one count.
#[derive(Clone, Default)]
pub struct Tally(Arc<Mutex<Counts>>);

/// How often each act had each outcome: a status, or a word.
pub type Counts = BTreeMap<Act, BTreeMap<String, u64>>;

impl Tally {
    /// Counts an outcome of an act.
    pub fn count(&self, act: Act, outcome: &str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(act).or_default().entry(outcome.to_owned()).or_default() += 1;
    }

    /// Everything counted so far.
    pub fn counts(&self) -> Counts {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The number of all outcomes that are `outcome`.
pub fn sum_of(counts: &Counts, outcome: &str) -> u64 {
    counts.values().filter_map(|outcomes| outcomes.get(outcome)).sum()
}

/// The number of all outcomes.
pub fn total(counts: &Counts) -> u64 {
    counts.values().flat_map(BTreeMap::values).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_counted_by_act_and_kind() {
        let tally = Tally::default();
        tally.count(Act::Cursors, "400");
        tally.clone().count(Act::Tokens, "401");
        tally.count(Act::Tokens, "429");
        let counts = tally.counts();
        assert_eq!((total(&counts), sum_of(&counts, "429")), (3, 1));
    }
}
