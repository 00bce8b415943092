//! The phases of a run, and what is measured in each.

use super::{
    act::{Act, Stranger},
    args::Args,
    report::{Phase, Size, State},
    shop::Shop,
    tally::{Tally, total},
};
use crate::{measure::metric, program::Program};
use anyhow::{Context, Result, bail};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Duration of a phase with all acts, and of one without any, unless the run is too short for two.
const PHASE: Duration = Duration::from_mins(1);

/// The part of a run in which the stranger does one act at a time.
const IN_TURN: u32 = 4;

/// Time after a phase in which what it has left behind may end.
const REST: Duration = Duration::from_secs(3);

/// How long the program may take to say whether it is ready.
const READY: Duration = Duration::from_secs(5);

/// A planned phase: the acts that the stranger does at once, and the duration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What the phase is called.
    pub what: String,
    /// The acts.
    pub acts: Vec<Act>,
    /// The duration.
    pub length: Duration,
}

impl Plan {
    /// The name of a phase without the stranger.
    pub const ALONE: &'static str = "no stranger";
    /// The name of a phase with all acts at once.
    pub const TOGETHER: &'static str = "all at once";

    /// The phases of a run of this length with these acts.
    pub fn of(run: Duration, acts: &[Act]) -> Vec<Self> {
        let in_turn = if acts.len() > 1 { run / IN_TURN } else { Duration::ZERO };
        let in_pairs = run.saturating_sub(in_turn);
        let pairs = in_pairs.as_secs() / (2 * PHASE.as_secs());
        let pairs = u32::try_from(pairs).unwrap_or(u32::MAX / 2).max(1);
        let length = in_pairs / (2 * pairs);
        let alone = || Self { what: Self::ALONE.to_owned(), acts: Vec::new(), length };
        let one = |act: &Act| Self {
            what: format!("{act} only"),
            acts: vec![*act],
            length: in_turn / u32::try_from(acts.len()).unwrap_or(1),
        };
        let mut plan = vec![alone()];
        if acts.len() > 1 {
            plan.extend(acts.iter().map(one));
        }
        for pair in 0..pairs {
            if pair > 0 {
                plan.push(alone());
            }
            plan.push(Self { what: Self::TOGETHER.to_owned(), acts: acts.to_vec(), length });
        }
        plan
    }
}

/// What a phase needs.
pub struct Stage {
    /// The program.
    pub program: Program,
    /// The shop in it.
    pub shop: Arc<Shop>,
    /// The stranger.
    pub stranger: Arc<Stranger>,
    /// What the stranger was told.
    pub tally: Tally,
}

impl Stage {
    /// The program's memory, its data and its events now.
    ///
    /// # Errors
    /// When the program has ended.
    pub async fn state(&mut self) -> Result<State> {
        if let Some(how) = self.program.ended()? {
            bail!("the program ended: {how}");
        }
        let data = self.program.data_dir();
        let metrics = self.shop.metrics().await.context("the program tells no metrics")?;
        Ok(State {
            memory_kib: self.program.memory()?,
            log: size(&data.join("log")),
            postgres: size(&data.join("postgres")),
            data: size(&data),
            events: metric(&metrics, "orderlog_events_appended_total"),
            cpu: self.program.cpu()?,
            requests: total(&self.tally.counts()),
        })
    }

    /// Runs a phase.
    ///
    /// # Errors
    /// When the program ends.
    pub async fn run(&mut self, args: &Args, plan: &Plan) -> Result<Phase> {
        let (before, began, ending) =
            (self.state().await?, Instant::now(), CancellationToken::new());
        let at_the_end = async {
            sleep(plan.length).await;
            ending.cancel();
        };
        let (seen, (), polls, ()) = tokio::join!(
            self.shop.trade(args, &ending),
            self.stranger.act(&plan.acts, &ending),
            self.poll(&ending),
            at_the_end
        );
        let (took, after) = (began.elapsed(), self.state().await?);
        sleep(REST).await;
        let (ready, unready) = polls;
        Ok(Phase { what: plan.what.clone(), took, seen: seen?, ready, unready, before, after })
    }

    /// Asks each second whether the program is ready. Returns how often it was and how often not.
    async fn poll(&self, ending: &CancellationToken) -> (u64, u64) {
        let (mut ready, mut unready) = (0, 0);
        let mut seconds = interval(Duration::from_secs(1));
        while ending.run_until_cancelled(seconds.tick()).await.is_some() {
            let is_ready = timeout(READY, self.shop.is_ready()).await.unwrap_or(false);
            *(if is_ready { &mut ready } else { &mut unready }) += 1;
        }
        (ready, unready)
    }
}

/// The bytes of all files in a folder. Files that vanish meanwhile count for nothing.
fn size(folder: &Path) -> Size {
    let mut bytes = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(found) if found.is_dir() => folders.push(entry.path()),
                Ok(found) => bytes += found.len(),
                Err(_) => {}
            }
        }
    }
    Size(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_as_long_as_asked_and_has_as_much_time_without_the_stranger_as_with_all_acts() {
        for seconds in [20, 120, 600, 3600] {
            let run = Duration::from_secs(seconds);
            let plan = Plan::of(run, &[Act::Cursors, Act::Searches, Act::Tokens]);
            let sum = |what: &str| {
                plan.iter().filter(|one| one.what == what).map(|one| one.length).sum::<Duration>()
            };
            assert_eq!(sum(Plan::ALONE), sum(Plan::TOGETHER), "{seconds}");
            let all: Duration = plan.iter().map(|one| one.length).sum();
            assert!(run.abs_diff(all) < Duration::from_millis(1), "{seconds}: {all:?}");
        }
    }

    #[test]
    fn a_single_act_is_not_measured_twice() {
        let plan = Plan::of(Duration::from_mins(1), &[Act::Cursors]);
        assert_eq!(
            plan.iter().map(|one| &*one.what).collect::<Vec<_>>(),
            [Plan::ALONE, Plan::TOGETHER]
        );
    }
}
