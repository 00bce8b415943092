//! Rebuilds whose projector is killed during the rebuild; the next projector must finish them.

use crate::{
    PATIENCE,
    check::Violation,
    faults::{Act, Fault, Tally, When},
    process::{Outcome, Process, Wish},
    run::Run,
    shop::{Chance, story},
};
use projections::{ProjectorSettings, ReadModel};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// The pause between two reads of the database, unless a fault strikes.
const LOOK: Duration = Duration::from_millis(5);

/// The approximate number of messages of a rebuild of this history.
const MESSAGES: u64 = 160;

impl Run<'_> {
    /// Kills projectors `kills` times. After each kill the rebuild must finish, and its rows are
    /// compared with the fold of the log.
    pub async fn killed_rebuilds(mut self, seed: u64, kills: u32) -> Result<Tally, Violation> {
        let mut chance = Chance(seed ^ 0x7265_6275);
        self.write(&story(seed, 50).0).await;
        self.until_complete().await?;
        self.processes.clear();
        let mut killed = 0;
        while killed < kills {
            let model = ReadModel::ALL[chance.below(4) as usize];
            self.wish_for(Wish::Rebuild, model).await?;
            self.settings = ProjectorSettings {
                tick: Duration::from_millis(10),
                lease: Duration::from_millis(0),
                close: chance.below(3) as i64,
                bulk_tasks: 1 + chance.below(3) as u32,
                bulk_bytes: [1, 8_000, 64 << 20][chance.below(3) as usize],
                ..self.settings.clone()
            };
            let act = if chance.one_in(2) { Act::KillBefore } else { Act::KillAfter };
            let message = 1 + chance.below(MESSAGES) as u32;
            let fault = Fault { when: When::Message(message), act };
            killed += u32::from(self.rebuilding(fault, killed).await?);
            self.finish_rebuild(killed).await?;
            self.wish_for(Wish::Drop, model).await?;
        }
        self.finish(1).await
    }

    /// Runs a rebuild with a fault. Returns whether the projector was killed before the rebuild was
    /// done.
    async fn rebuilding(&mut self, fault: Fault, id: u32) -> Result<bool, Violation> {
        let settings = self.settings.clone();
        let (process, _) = Process::projector(&self.world, id.into(), settings, vec![fault]).await;
        loop {
            if let Ok(Some(struck)) = timeout(LOOK, self.struck.recv()).await {
                self.tally.struck(struck.act, struck.statement);
                while !process.proxy.is_dead() {
                    self.look().await?;
                }
                return Ok(true);
            }
            if self.look().await?.is_some_and(|seen| !seen.building()) {
                return Ok(false);
            }
        }
    }

    async fn finish_rebuild(&mut self, id: u32) -> Result<(), Violation> {
        let settings = self.settings.clone();
        let (process, ended) = Process::projector(&self.world, id.into(), settings, vec![]).await;
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Check during the rebuild too: the rows must match the checkpoint at any moment.
            let seen = self.look().await?;
            if seen.as_ref().is_some_and(|seen| !seen.building() && self.has_all(seen)) {
                break;
            }
            if Instant::now() >= deadline {
                let at = seen.map(|seen| seen.positions()).unwrap_or_default();
                return Err(Violation(format!("a rebuild did not finish: {at}")));
            }
        }
        process.stop();
        let stopped = timeout(PATIENCE, ended).await;
        stopped.map_err(|_| Violation("a projector did not stop".to_owned()))?.ok();
        Ok(())
    }

    async fn wish_for(&mut self, wish: Wish, model: ReadModel) -> Result<(), Violation> {
        let (_process, outcome) =
            Process::operator(&self.world, u64::MAX, (wish, model), vec![]).await;
        match outcome.await {
            Ok(Outcome::Done) => Ok(()),
            other => Err(Violation(format!("{wish:?} of {model} ended with {other:?}"))),
        }
    }
}
