//! Data that the server loses in a crash comes back from the log, even if nothing is appended to
//! the log.

use crate::{
    PATIENCE,
    check::{Eyes, Seen},
    cluster::Cluster,
    fold::Fact,
    process::{Process, World},
    shop::{Scribe, story},
};
use events::{Event, StreamId, environment::System, log::memory::MemoryLog};
use projections::ProjectorSettings;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};

struct Restarted {
    cluster: Cluster,
    world: World,
    eyes: Eyes,
    scribe: Scribe,
    facts: Vec<Fact>,
}

impl Restarted {
    async fn new(mut cluster: Cluster) -> Self {
        let log = Arc::new(MemoryLog::new(2, Arc::new(System::new())));
        let (server, options) = (Arc::clone(&cluster.port), cluster.new_database().await);
        let world = World { server, options, log, struck: mpsc::unbounded_channel().0 };
        let eyes = Eyes::new(Arc::clone(&world.server), world.options.clone());
        let scribe = Scribe::new(Arc::clone(&world.log));
        Self { cluster, world, eyes, scribe, facts: Vec::new() }
    }

    async fn projector(&self) -> (Process, oneshot::Receiver<()>) {
        let tick = Duration::from_millis(20);
        let settings = ProjectorSettings { tick, ..ProjectorSettings::default() };
        Process::projector(&self.world, 1, settings, vec![]).await
    }

    async fn write(&mut self, part: &[(StreamId, Event)]) {
        self.scribe.write(part, 5).await;
        self.facts.extend(self.scribe.written.drain(..).map(Fact::new));
    }

    /// Waits until a condition holds. Returns the number of events applied by then.
    async fn until(&mut self, what: &str, holds: impl Fn(&Seen, &[Fact]) -> bool) -> i64 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(seen) = self.eyes.look().await {
                seen.check(&self.facts).unwrap();
                if holds(&seen, &self.facts) {
                    return seen.events();
                }
            }
            assert!(Instant::now() < deadline, "waited in vain for: {what}");
        }
    }
}

/// The projector lives on while the server crashes. Each time the last transactions are too recent
/// to be on the server's disk, and nothing more is appended to the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_of_the_server_takes_comes_back_though_the_log_stands_still() {
    let mut it = Restarted::new(Cluster::start().await).await;
    let (process, ended) = it.projector().await;
    let (story, _) = story(30, 40);
    for part in story.chunks(story.len() / 6 + 1) {
        it.write(part).await;
        let before = it.until("all events are applied", Seen::complete).await;
        it.cluster.restart().await;
        let after = it.until("the lost events are applied again", Seen::complete).await;
        assert_eq!(after, before);
    }
    process.stop();
    timeout(PATIENCE, ended).await.unwrap().unwrap();
}

/// The server crashes as soon as the read models first exist.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_models_once_made_are_not_taken_by_a_crash() {
    let mut cluster = Cluster::start().await;
    for _ in 0..3 {
        let mut it = Restarted::new(cluster).await;
        it.write(&story(31, 3).0).await;
        let (_process, _) = it.projector().await;
        it.until("the read models exist", |seen, _| seen.made()).await;
        it.cluster.restart().await;
        it.until("all events are applied", Seen::complete).await;
        cluster = it.cluster;
    }
}
