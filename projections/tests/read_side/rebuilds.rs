//! Rebuilds while the shop is running.

use crate::{
    scenario::{Scenario, eventually, new_database, settings},
    shop::story,
};
use events::{Event, LogPosition, StreamId, product};
use projections::{
    ProjectorSettings, ReadModel, ReadModels,
    database::{self, PoolSettings},
    history::Range,
    rebuild::{self, Manner, RebuildError, State},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use uuid::Uuid;

async fn serving(scenario: &Scenario, model: ReadModel) -> u32 {
    let status = rebuild::status(&scenario.pool, &*scenario.log).await.unwrap();
    status.iter().find(|it| it.model == model && it.serving).unwrap().version
}

async fn until_serving(scenario: &Scenario, model: ReadModel, version: u32) {
    eventually("the version serves", async || serving(scenario, model).await == version).await;
}

/// Repeats the same queries. No query may fail, and no answer may be older than the previous one.
async fn watch(models: ReadModels, product: Uuid, stop: Arc<AtomicBool>) -> usize {
    let (mut version, mut events, mut asked) = (0, 0, 0);
    let mut positions = [LogPosition::default(), LogPosition::default()];
    while !stop.load(Ordering::Relaxed) {
        for (last, model) in positions.iter_mut().zip([ReadModel::Products, ReadModel::History]) {
            let position = models.position(model).await.unwrap();
            for at in last.iter() {
                let now = position.iter().find(|now| now.partition == at.partition);
                assert!(now.unwrap().offset >= at.offset, "{last} then {position}");
            }
            *last = position;
        }
        let found = models.product(product).await.unwrap().unwrap();
        assert!(found.version >= version, "version {version} then {}", found.version);
        version = found.version;
        let range = Range { after: 0, up_to: u64::MAX, limit: 100_000 };
        let history = models.history(StreamId::product(product), range).await.unwrap();
        assert!(history.len() >= events, "{events} events, then {}", history.len());
        events = history.len();
        asked += 1;
    }
    asked
}

/// Writes stock changes of a product among other events.
async fn trade(scenario: &mut Scenario, stream: StreamId, seed: u64) {
    let reason = product::StockReason::Received;
    let (story, _) = story(seed, 15);
    for part in story.chunks(10) {
        let change: Event =
            product::Event::from(product::StockChanged { quantity: 1, reason }).into();
        scenario.scribe.write(&[(stream, change)], 1).await;
        scenario.scribe.write(part, 4).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_goes_unnoticed_and_gives_the_same_rows() {
    let mut scenario = Scenario::new(3).await;
    let (story, cast) = story(20, 200);
    scenario.scribe.write(&story, 20).await;
    // `close` is so small that the new version must first read the log by itself.
    let settings = ProjectorSettings { close: 20, max_events_apart: 50, ..settings() };
    let projector = scenario.projector(settings).await;
    scenario.settle().await;
    let product = cast.products[0];
    let stop = Arc::new(AtomicBool::new(false));
    let watchers: Vec<_> = [scenario.models(), scenario.models_elsewhere()]
        .into_iter()
        .map(|models| tokio::spawn(watch(models, product, Arc::clone(&stop))))
        .collect();

    for (round, version) in [(1, 2), (2, 3)] {
        for model in ReadModel::ALL {
            assert_eq!(rebuild::request(&scenario.pool, model).await.unwrap(), version);
            let again = rebuild::request(&scenario.pool, model).await;
            assert!(matches!(again, Err(RebuildError::UnderWay(it)) if it == model));
        }
        for seed in 0..5 {
            trade(&mut scenario, StreamId::product(product), 100 * round + seed).await;
        }
        for model in ReadModel::ALL {
            until_serving(&scenario, model, version).await;
        }
        trade(&mut scenario, StreamId::product(product), 100 * round + 9).await;
    }
    scenario.settle().await;
    eventually("every version is fed to the end", async || {
        let status = rebuild::status(&scenario.pool, &*scenario.log).await.unwrap();
        assert!(status.iter().all(|version| version.state == State::Live));
        status.len() == 3 * ReadModel::ALL.len()
            && status.iter().all(|version| version.lag_events == 0)
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    for watcher in watchers {
        assert!(watcher.await.unwrap() > 10);
    }
    for model in ReadModel::ALL {
        let first = scenario.dump(model, 1).await;
        assert!(!first.is_empty());
        assert_eq!(scenario.dump(model, 2).await, first, "{model}");
        assert_eq!(scenario.dump(model, 3).await, first, "{model}");
    }
    projector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn going_back_is_instant_and_going_on_too() {
    let mut scenario = Scenario::new(2).await;
    let (story, cast) = story(21, 40);
    scenario.scribe.write(&story, 10).await;
    let projector = scenario.projector(settings()).await;
    let (pool, model) = (scenario.pool.clone(), ReadModel::Products);
    assert!(matches!(rebuild::rollback(&pool, model).await, Err(RebuildError::NoOther(_))));
    rebuild::request(&pool, model).await.unwrap();
    until_serving(&scenario, model, 2).await;
    // Both versions may still be behind, so wait until they have caught up.
    scenario.settle().await;
    let stop = Arc::new(AtomicBool::new(false));
    let watchers: Vec<_> = [scenario.models(), scenario.models_elsewhere()]
        .into_iter()
        .map(|models| tokio::spawn(watch(models, cast.products[0], Arc::clone(&stop))))
        .collect();
    for (round, version) in [1, 2, 1].into_iter().enumerate() {
        trade(&mut scenario, StreamId::product(cast.products[0]), 200 + round as u64).await;
        assert_eq!(rebuild::rollback(&pool, model).await.unwrap(), version);
        assert_eq!(serving(&scenario, model).await, version);
        trade(&mut scenario, StreamId::product(cast.products[0]), 300 + round as u64).await;
    }
    scenario.settle().await;
    stop.store(true, Ordering::Relaxed);
    for watcher in watchers {
        watcher.await.unwrap();
    }
    assert_eq!(rebuild::drop_old(&pool, model).await.unwrap(), [2]);
    assert!(matches!(rebuild::drop_old(&pool, model).await, Err(RebuildError::NoOther(_))));
    trade(&mut scenario, StreamId::product(cast.products[0]), 400).await;
    scenario.settle().await;
    projector.stop().await;
}

/// A version written by other code is not fed and cannot serve again; this code builds its own
/// version beside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_of_other_code_is_left_alone() {
    let mut scenario = Scenario::new(2).await;
    let (story, _) = story(22, 30);
    let (before, after) = story.split_at(story.len() / 2);
    scenario.scribe.write(before, 10).await;
    let projector = scenario.projector(settings()).await;
    scenario.settle().await;
    projector.stop().await;
    sqlx::query("update control.version set fingerprint = 'other' where projection = 'orders'")
        .execute(&scenario.pool)
        .await
        .unwrap();
    projections::prepare(&scenario.pool, 2).await.unwrap();
    let old = scenario.dump(ReadModel::Orders, 1).await;
    let projector = scenario.projector(settings()).await;
    until_serving(&scenario, ReadModel::Orders, 2).await;
    scenario.scribe.write(after, 10).await;
    scenario.settle().await;
    assert_eq!(scenario.dump(ReadModel::Orders, 1).await, old);
    assert_ne!(scenario.dump(ReadModel::Orders, 2).await, old);
    let status = rebuild::status(&scenario.pool, &*scenario.log).await.unwrap();
    let stale = status.iter().find(|it| it.model == ReadModel::Orders && it.version == 1).unwrap();
    assert_eq!((stale.state, stale.serving), (State::Stale, false));
    assert!(stale.lag_events > 0);
    let back = rebuild::rollback(&scenario.pool, ReadModel::Orders).await;
    assert!(matches!(back, Err(RebuildError::Behind(_))));
    projector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_can_be_given_up() {
    let mut scenario = Scenario::new(2).await;
    let (pool, model) = (scenario.pool.clone(), ReadModel::History);
    assert!(matches!(rebuild::cancel(&pool, model).await, Err(RebuildError::NotUnderWay(_))));
    rebuild::request(&pool, model).await.unwrap();
    // Several rebuilds are started all together or not at all.
    let several = rebuild::request_all(&pool, &[ReadModel::Orders, model], Manner::default()).await;
    assert!(matches!(several, Err(RebuildError::UnderWay(of)) if of == model));
    let orders = rebuild::cancel(&pool, ReadModel::Orders).await;
    assert!(matches!(orders, Err(RebuildError::NotUnderWay(_))));
    rebuild::cancel(&pool, model).await.unwrap();
    scenario.scribe.write(&story(23, 10).0, 10).await;
    let projector = scenario.projector(settings()).await;
    scenario.settle().await;
    assert_eq!(serving(&scenario, model).await, 1);
    // The version number and the schema are free again.
    assert_eq!(rebuild::request(&pool, model).await.unwrap(), 2);
    until_serving(&scenario, model, 2).await;
    projector.stop().await;
}

/// A feed locks the checkpoints of a version in the order of partitions. The drop must lock them in
/// the same order, in spite of their physical order in the table.
#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_version_that_is_fed_is_no_deadlock() {
    let scenario = Scenario::new(2).await;
    let (pool, model) = (scenario.pool.clone(), ReadModel::Orders);
    rebuild::request(&pool, model).await.unwrap();
    let locked = |partition: i32| {
        sqlx::query(
            "update control.checkpoint set updated_at = now() \
             where projection = 'orders' and version = 2 and partition = $1",
        )
        .bind(partition)
    };
    // The row of the first partition is stored after the other one.
    locked(0).execute(&pool).await.unwrap();
    let mut feed = database::begin(&pool).await.unwrap();
    locked(0).execute(&mut *feed).await.unwrap();
    let dropping = tokio::spawn({
        let pool = pool.clone();
        async move { rebuild::cancel(&pool, model).await }
    });
    let waiting = "select exists (select from pg_stat_activity where wait_event_type = 'Lock' \
                   and datname = current_database())";
    eventually("it waits for the feed", async || {
        sqlx::query_scalar::<_, bool>(waiting).fetch_one(&pool).await.unwrap()
    })
    .await;
    locked(1).execute(&mut *feed).await.unwrap();
    feed.commit().await.unwrap();
    dropping.await.unwrap().unwrap();
}

/// Before the first versions exist, a rebuild would become the first version and never serve.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_rebuilt_before_something_serves() {
    let options = new_database().await;
    let pool = database::connect(options, PoolSettings::default()).await.unwrap();
    database::migrate(&pool).await.unwrap();
    let refused = rebuild::request(&pool, ReadModel::History).await;
    assert!(matches!(refused, Err(RebuildError::NoneServes(ReadModel::History))));
    projections::prepare(&pool, 2).await.unwrap();
    assert_eq!(rebuild::request(&pool, ReadModel::History).await.unwrap(), 2);
}
