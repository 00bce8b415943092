//! Shortens a run that breaks an invariant.

use super::{
    plan::Plan,
    run::{Report, run},
};

/// The number of worlds tried for each shorter plan, because without an act the timing of the
/// others changes.
const WORLDS: u64 = 4;

/// Removes acts from `plan` that are not needed to break an invariant. Tries at most `budget`
/// runs.
pub fn shrink(plan: &Plan, budget: u32) -> Plan {
    let mut shortest = plan.clone();
    let mut left = budget;
    let mut size = shortest.acts.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let mut shorter = false;
        while at < shortest.acts.len() && left > 0 {
            let mut candidate = shortest.clone();
            let end = (at + size).min(candidate.acts.len());
            candidate.acts.drain(at..end);
            match breaks_somewhere(&candidate, &mut left) {
                Some(found) => (shortest, shorter) = (found, true),
                None => at += size,
            }
        }
        if left == 0 || (size == 1 && !shorter) {
            return shortest;
        }
        size = (size / 2).max(1);
    }
}

fn breaks_somewhere(plan: &Plan, left: &mut u32) -> Option<Plan> {
    for world in 0..WORLDS {
        *left = left.checked_sub(1)?;
        let tried = Plan { seed: plan.seed.wrapping_add(world), ..plan.clone() };
        if run(&tried, false).broken.is_some() {
            return Some(tried);
        }
    }
    None
}

/// The report of a failed run: what broke, how to repeat it, and the shortest plan that breaks.
pub fn explain(seed: u64, report: &Report) -> String {
    let shortest = shrink(&Plan::of(seed), 2000);
    let short = run(&shortest, true);
    let broken = report.broken.as_deref().unwrap_or("nothing");
    format!(
        "seed {seed}: {broken}\nagain: cargo bench --bench simulate -- --seed {seed}\n\nthe shortest history found, {} acts: {}\n{}\n",
        shortest.acts.len(),
        short.broken.as_deref().unwrap_or("nothing"),
        short.story.join("\n")
    )
}
