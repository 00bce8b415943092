//! Kills a process at its first message, the next one at its second message, and so on.

use crate::{
    PATIENCE,
    check::Violation,
    faults::{Act, Fault, Tally, When},
    process::{Outcome, Process, Wish},
    run::Run,
    shop::story,
};
use projections::ReadModel;
use tokio::time::{Instant, timeout};

fn killed_at(message: u32) -> [Fault; 1] {
    let act = if (message / 2).is_multiple_of(2) { Act::KillBefore } else { Act::KillAfter };
    [Fault { when: When::Message(message), act }]
}

impl Run<'_> {
    /// Runs projectors, of which the n-th dies at its n-th message. There are always events to
    /// apply.
    pub async fn sweep_projector(mut self, messages: u32) -> Result<Tally, Violation> {
        let (story, _) = story(5, messages as usize / 4);
        let mut parts = story.chunks(story.len() / messages as usize + 1);
        for message in 1..=messages {
            if let Some(part) = parts.next() {
                self.write(part).await;
            }
            let faults = killed_at(message).to_vec();
            let settings = self.settings.clone();
            let process = Process::projector(&self.world, message.into(), settings, faults).await.0;
            let struck = timeout(PATIENCE, self.struck.recv()).await;
            let struck = struck.map_err(|_| Violation(format!("message {message} never came")))?;
            let struck = struck.unwrap();
            self.tally.struck(struck.act, struck.statement);
            // The projector dies only after the message was executed, so wait for that.
            while !process.proxy.is_dead() {
                self.look().await?;
            }
            drop(process);
            self.look().await?;
        }
        self.finish(0).await
    }

    /// Runs operators, of which the n-th dies at the n-th message of its request and then tries
    /// again, until one finishes before that message.
    pub async fn sweep_operator(
        mut self,
        model: ReadModel,
        stride: u32,
    ) -> Result<Tally, Violation> {
        let (story, _) = story(6, 10);
        self.write(&story).await;
        self.until_complete().await?;
        let mut going = vec![Wish::Rebuild, Wish::Rollback, Wish::Drop, Wish::Cancel];
        let mut message = 0;
        while !going.is_empty() {
            message += stride;
            for wish in [Wish::Rebuild, Wish::Rollback, Wish::Drop] {
                let survived = self.killed_and_again(wish, model, message).await?;
                going.retain(|it| !(survived && *it as u8 == wish as u8));
                self.until_built().await?;
            }
            // No process continues the work.
            self.processes.clear();
            self.asked(Wish::Rebuild, model, vec![]).await;
            let survived = self.killed_and_again(Wish::Cancel, model, message).await?;
            going.retain(|it| !(survived && matches!(it, Wish::Cancel)));
            self.until_built().await?;
        }
        self.finish(0).await
    }

    /// Runs operators that drain a parked stream, of which the n-th dies at the n-th message, until
    /// one finishes before that message.
    pub async fn sweep_retry(mut self, stride: u32) -> Result<Tally, Violation> {
        let (story, _) = story(7, 700);
        let mut message = 0;
        for part in story.chunks(15) {
            self.poison();
            self.write(part).await;
            self.until_complete().await?;
            self.understand();
            let parked = self.look().await?.is_some_and(|seen| !seen.parked().is_empty());
            if !parked {
                continue;
            }
            message += stride;
            if self.killed_and_again(Wish::Retry, ReadModel::Orders, message).await? {
                return self.finish(0).await;
            }
            self.until_drained().await?;
        }
        Err(Violation(format!("draining takes more than {message} messages")))
    }

    async fn until_drained(&mut self) -> Result<(), Violation> {
        let drained = self.look().await?.is_some_and(|seen| seen.parked().is_empty());
        if drained { Ok(()) } else { Err(Violation("a stream is still parked".to_owned())) }
    }

    /// Whether the operator finished before the message.
    async fn killed_and_again(
        &mut self,
        wish: Wish,
        model: ReadModel,
        message: u32,
    ) -> Result<bool, Violation> {
        let survived = self.asked(wish, model, killed_at(message).to_vec()).await.is_some();
        while let Ok(struck) = self.struck.try_recv() {
            self.tally.struck(struck.act, struck.statement);
        }
        self.look().await?;
        let again = self.asked(wish, model, vec![]).await;
        if again.is_none_or(|outcome| outcome == Outcome::Failed) {
            return Err(Violation(format!("{wish:?} failed after a kill at message {message}")));
        }
        self.look().await?;
        Ok(survived)
    }

    /// The result of a request; `None` if the operator dies.
    pub async fn asked(
        &mut self,
        wish: Wish,
        model: ReadModel,
        faults: Vec<Fault>,
    ) -> Option<Outcome> {
        let asked = (wish, model);
        let (process, outcome) = Process::operator(&self.world, u64::MAX, asked, faults).await;
        let outcome = tokio::select! {
            outcome = outcome => outcome.ok(),
            () = process.proxy.dead() => None,
        };
        outcome.filter(|_| !process.proxy.is_dead())
    }

    async fn until_built(&mut self) -> Result<(), Violation> {
        let deadline = Instant::now() + PATIENCE;
        while self.look().await?.is_none_or(|seen| seen.building()) {
            self.start_processes().await;
            if Instant::now() >= deadline {
                return Err(Violation("a rebuild did not finish".to_owned()));
            }
        }
        Ok(())
    }
}
