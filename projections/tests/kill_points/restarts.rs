//! What a server loses in a crash comes back from the log, also while the log stands still.

use crate::{
    PATIENCE,
    check::Eyes,
    cluster::Cluster,
    fold::Fact,
    process::{Process, World},
    shop::{Scribe, story},
};
use events::{environment::System, log::memory::MemoryLog};
use projections::ProjectorSettings;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

/// A projector that never dies, over a server that does. Each time the last transactions are younger than what the server
/// writes to its disk by itself, and nothing more is written to the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_of_the_server_takes_comes_back_though_the_log_stands_still() {
    let mut cluster = Cluster::start().await;
    let log = Arc::new(MemoryLog::new(2, Arc::new(System::new())));
    let (server, options) = (Arc::clone(&cluster.port), cluster.new_database().await);
    let world = World { server, options, log, struck: mpsc::unbounded_channel().0 };
    let mut eyes = Eyes::new(Arc::clone(&world.server), world.options.clone());
    let mut scribe = Scribe::new(Arc::clone(&world.log));
    let settings =
        ProjectorSettings { tick: Duration::from_millis(20), ..ProjectorSettings::default() };
    let (process, ended) = Process::projector(&world, 1, settings, vec![]).await;
    let (story, _) = story(30, 40);
    let mut facts: Vec<Fact> = Vec::new();
    for part in story.chunks(story.len() / 6 + 1) {
        scribe.write(part, 5).await;
        facts.extend(scribe.written.drain(..).map(Fact::new));
        let before = complete(&mut eyes, &facts).await;
        cluster.restart().await;
        assert_eq!(complete(&mut eyes, &facts).await, before);
    }
    process.stop();
    timeout(PATIENCE, ended).await.unwrap().unwrap();
}

/// Waits until all is fed; gives how many events that makes.
async fn complete(eyes: &mut Eyes, facts: &[Fact]) -> i64 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = eyes.look().await {
            seen.check(facts).unwrap();
            if seen.complete(facts) {
                return seen.events();
            }
        }
        assert!(Instant::now() < deadline, "what was lost does not come back");
    }
}
