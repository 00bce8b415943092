//! Zombie projectors, kills, damage of the log, and other logs.

use crate::{
    doctored::{Doctored, Seen},
    scenario::{Scenario, eventually, settings},
    shop::{Chance, Scribe, story},
};
use events::{
    Partition,
    environment::System,
    log::{EventLog, memory::MemoryLog},
};
use projections::{Behind, Progress, ProjectorSettings, ReadModel};
use std::{sync::Arc, time::Duration};

/// The rows of an undisturbed projector on the log of `scenario`.
pub async fn undisturbed(scenario: &Scenario) -> Vec<Vec<String>> {
    let quiet = Scenario::new(scenario.log.partitions()).await;
    let quiet = Scenario { log: Arc::clone(&scenario.log), ..quiet };
    let projector = quiet.projector(settings()).await;
    quiet.settle().await;
    projector.stop().await;
    quiet.dump_all().await
}

async fn assert_each_event_counted_once(scenario: &Scenario) {
    for model in ReadModel::ALL {
        let checkpoints = scenario.checkpoints(model, 1).await;
        assert!(checkpoints.iter().all(|(_, stopped)| stopped.is_none()), "{checkpoints:?}");
        let events: i64 = checkpoints.iter().map(|(events, _)| events).sum();
        assert_eq!(events, scenario.scribe.written.len() as i64, "{model}");
    }
}

/// Three projectors that each believe that they alone feed everything. They never check their
/// leases again, and the leases expire.
#[tokio::test(flavor = "multi_thread")]
async fn zombies_apply_nothing_twice() {
    let mut scenario = Scenario::new(3).await;
    let zombie = || ProjectorSettings {
        tick: Duration::from_hours(1),
        lease: Duration::from_millis(1),
        max_events: 20,
        groups: 2,
        ..settings()
    };
    let mut zombies = Vec::new();
    for _ in 0..3 {
        let progress = Progress::new(3);
        zombies.push(scenario.projector_with(progress, zombie()).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    scenario.scribe.write(&story(8, 200).0, 3).await;
    let models = scenario.models_elsewhere();
    for model in ReadModel::ALL {
        for partition in (0..3).map(Partition) {
            models.wait_for_end(model, partition, crate::scenario::PATIENCE).await.unwrap();
        }
    }
    for zombie in zombies {
        zombie.stop().await;
    }
    assert_each_event_counted_once(&scenario).await;
    assert_eq!(scenario.dump_all().await, undisturbed(&scenario).await);
}

/// The projector is dropped at random moments, also in the middle of a transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_projector_is_continued_by_the_next() {
    let mut scenario = Scenario::new(3).await;
    let (story, _) = story(9, 300);
    let mut chance = Chance(9);
    for part in story.chunks(story.len() / 12 + 1) {
        let settings = ProjectorSettings { max_events: 10, lease: Duration::ZERO, ..settings() };
        let progress = Progress::new(3);
        let projector = scenario.projector_with(progress, settings).await;
        scenario.scribe.write(part, 5).await;
        tokio::time::sleep(Duration::from_millis(chance.below(30))).await;
        drop(projector);
    }
    let projector = scenario.projector(settings()).await;
    scenario.settle().await;
    projector.stop().await;
    assert_each_event_counted_once(&scenario).await;
    assert_eq!(scenario.dump_all().await, undisturbed(&scenario).await);
}

/// Connections are closed repeatedly, as by restarts of the server.
#[tokio::test(flavor = "multi_thread")]
async fn lost_connections_lose_nothing() {
    let mut scenario = Scenario::new(3).await;
    let (story, _) = story(10, 300);
    let settings = ProjectorSettings { max_events: 30, ..settings() };
    let projector = scenario.projector(settings).await;
    for part in story.chunks(story.len() / 8 + 1) {
        scenario.scribe.write(part, 5).await;
        sqlx::query(
            "select pg_terminate_backend(pid) from pg_stat_activity \
             where datname = current_database() and application_name = 'orderlog projector'",
        )
        .execute(&scenario.pool)
        .await
        .unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    scenario.settle().await;
    projector.stop().await;
    assert_each_event_counted_once(&scenario).await;
    assert_eq!(scenario.dump_all().await, undisturbed(&scenario).await);
}

/// Another process takes over from one that died without releasing its leases.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over() {
    let mut scenario = Scenario::new(2).await;
    let first = scenario.projector_with(Progress::new(2), settings()).await;
    eventually("the first holds the leases", async || {
        let held: i64 = sqlx::query_scalar("select count(*) from control.lease")
            .fetch_one(&scenario.pool)
            .await
            .unwrap();
        held == 2 * ReadModel::ALL.len() as i64
    })
    .await;
    let standby = scenario.projector(settings()).await;
    drop(first);
    scenario.scribe.write(&story(11, 30).0, 5).await;
    scenario.settle().await;
    standby.stop().await;
    assert_each_event_counted_once(&scenario).await;
}

fn stopped_with(checkpoints: &[(i64, Option<String>)], partition: Partition) -> Option<&str> {
    checkpoints[partition.0 as usize].1.as_deref()
}

async fn until_stopped(scenario: &Scenario, model: ReadModel, partition: Partition) {
    eventually("the partition stops", async || {
        let checkpoints = scenario.checkpoints(model, 1).await;
        stopped_with(&checkpoints, partition).is_some()
    })
    .await;
}

/// A damaged log is not a poison event: its partition stops, because the log cannot be trusted.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_log_stops_its_partition_and_no_other() {
    let mut scenario = Scenario::new(3).await;
    let (story, _) = story(12, 60);
    scenario.scribe.write(&story, 5).await;
    let hurt = scenario.scribe.partition(story[0].0);
    let of_hurt: Vec<_> =
        scenario.scribe.written.iter().filter(|(at, _)| at.partition == hurt).collect();
    let sound = of_hurt.len() / 2;
    let at = of_hurt[sound].0;
    let doctored = Doctored::new(Arc::clone(&scenario.log), move |partition, raw| {
        if partition == at.partition && raw.offset >= at.offset {
            Seen::Damaged
        } else {
            Seen::Plain
        }
    });
    scenario.log = Arc::new(doctored);
    let projector = scenario.projector(settings()).await;
    for model in ReadModel::ALL {
        until_stopped(&scenario, model, hurt).await;
        for models in [scenario.models(), scenario.models_elsewhere()] {
            for partition in (0..3).map(Partition) {
                let end = models.wait_for_end(model, partition, crate::scenario::PATIENCE).await;
                match end {
                    Ok(()) => assert_ne!(partition, hurt),
                    Err(Behind::Stopped { .. }) => assert_eq!(partition, hurt),
                    Err(error) => panic!("{error}"),
                }
            }
        }
        let checkpoints = scenario.checkpoints(model, 1).await;
        assert!(checkpoints[hurt.0 as usize].0 <= sound as i64);
        assert!(stopped_with(&checkpoints, hurt).unwrap().contains("damaged"));
    }
    let status = projections::rebuild::status(&scenario.pool, &*scenario.log).await.unwrap();
    assert!(status.iter().all(|version| version.state == projections::rebuild::State::Stopped));
    assert!(status.iter().all(|version| version.parked_streams == 0));
    projector.stop().await;
}

/// The log was replaced by another one or a shorter one, so the checkpoints do not match it.
#[tokio::test(flavor = "multi_thread")]
async fn another_log_is_noticed() {
    for orders in [40, 3] {
        let mut scenario = Scenario::new(2).await;
        scenario.scribe.write(&story(15, 20).0, 5).await;
        let projector = scenario.projector(settings()).await;
        scenario.settle().await;
        projector.stop().await;
        let before = scenario.dump_all().await;

        let other = MemoryLog::new(2, Arc::new(System::new()));
        scenario.log = Arc::new(other);
        let mut scribe = Scribe::elsewhere(Arc::clone(&scenario.log));
        scribe.write(&story(16, orders).0, 5).await;
        let projector = scenario.projector(settings()).await;
        for model in ReadModel::ALL {
            for partition in (0..2).map(Partition) {
                until_stopped(&scenario, model, partition).await;
                let checkpoints = scenario.checkpoints(model, 1).await;
                assert!(stopped_with(&checkpoints, partition).unwrap().contains("another log"));
            }
        }
        projector.stop().await;
        assert_eq!(scenario.dump_all().await, before);
    }
}

/// A database that belongs to a log with another number of partitions is refused.
#[tokio::test(flavor = "multi_thread")]
async fn another_number_of_partitions_is_refused() {
    let scenario = Scenario::new(2).await;
    let log: Arc<dyn EventLog> = Arc::new(MemoryLog::new(3, Arc::new(System::new())));
    let refused = projections::prepare(&scenario.pool, log.partitions()).await;
    assert!(matches!(
        refused,
        Err(projections::PrepareError::Partitions { partitions: 3, found: 2 })
    ));
}
