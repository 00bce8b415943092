//! Bulk filling of new versions.

use crate::{
    doctored::{Doctored, Seen},
    scenario::{Scenario, eventually, settings},
    shop::story,
};
use events::{Partition, StreamId};
use projections::{ProjectorSettings, ReadModel, rebuild};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Settings with which a version that is behind by any number of events is filled in bulk.
fn in_bulk(bulk_bytes: usize) -> ProjectorSettings {
    ProjectorSettings { close: 0, bulk_bytes, ..settings() }
}

async fn until_serving(scenario: &Scenario, models: &[ReadModel], version: u32) {
    eventually("every new version serves", async || {
        let status = rebuild::status(&scenario.pool, &*scenario.log).await.unwrap();
        let serves = |model: &ReadModel| {
            status.iter().any(|it| it.model == *model && it.version == version && it.serving)
        };
        models.iter().all(serves)
    })
    .await;
}

/// The definitions of the indexes of a version's table.
async fn indexes(scenario: &Scenario, version: u32) -> Vec<String> {
    let query = "select regexp_replace(indexdef, '_v[0-9]+', '') from pg_indexes \
                 where schemaname like '%\\_v' || $1::text order by 1";
    sqlx::query_scalar(query).bind(version.to_string()).fetch_all(&scenario.pool).await.unwrap()
}

/// Fills with memory for whole partitions, for some events, and for almost none, so that every
/// stream continues in another part.
#[tokio::test(flavor = "multi_thread")]
async fn bulk_filling_gives_the_same_rows_as_the_feed() {
    let mut scenario = Scenario::new(3).await;
    scenario.scribe.write(&story(40, 250).0, 4).await;
    let projector = scenario.projector(settings()).await;
    scenario.settle().await;
    projector.stop().await;
    for (version, bulk_bytes) in [(2, 64 << 20), (3, 20_000), (4, 1)] {
        let projector = scenario.projector(in_bulk(bulk_bytes)).await;
        for model in ReadModel::ALL {
            assert_eq!(rebuild::request(&scenario.pool, model).await.unwrap(), version);
        }
        until_serving(&scenario, &ReadModel::ALL, version).await;
        for model in ReadModel::ALL {
            let first = scenario.dump(model, 1).await;
            assert_eq!(scenario.dump(model, version).await, first, "{model}, {bulk_bytes} bytes");
            let (ours, theirs) = (version as i32, 1);
            let checkpoints = scenario.checkpoints(model, ours).await;
            assert_eq!(checkpoints, scenario.checkpoints(model, theirs).await);
        }
        assert_eq!(indexes(&scenario, version).await, indexes(&scenario, 1).await);
        // Later events come through the feed.
        scenario.scribe.write(&story(41 + u64::from(version), 5).0, 4).await;
        scenario.settle().await;
        projector.stop().await;
    }
}

/// If a projector ends during bulk filling, the next one continues with the next part.
#[tokio::test(flavor = "multi_thread")]
async fn parts_filled_before_a_restart_are_not_filled_again() {
    let mut scenario = Scenario::new(2).await;
    scenario.scribe.write(&story(50, 300).0, 2).await;
    let projector = scenario.projector(settings()).await;
    scenario.settle().await;
    projector.stop().await;
    let model = ReadModel::Orders;
    rebuild::request(&scenario.pool, model).await.unwrap();
    let events = async || -> i64 {
        scenario.checkpoints(model, 2).await.iter().map(|(events, _)| events).sum()
    };
    let mut before = 0;
    for _ in 0..3 {
        let projector = scenario.projector(in_bulk(1)).await;
        eventually("it goes on", async || events().await > before).await;
        drop(projector);
        let now = events().await;
        assert!(now > before);
        before = now;
    }
    let projector = scenario.projector(in_bulk(1)).await;
    until_serving(&scenario, &[model], 2).await;
    assert_eq!(scenario.dump(model, 2).await, scenario.dump(model, 1).await);
    projector.stop().await;
}

/// A partition with an event that cannot be decoded is filled up to that event. The feed continues
/// from there and parks the stream.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_event_parks_its_stream_in_a_rebuild_as_in_the_feed() {
    let mut scenario = Scenario::new(1).await;
    let (story, cast) = story(60, 40);
    let (before, after) = story.split_at(story.len() / 2);
    scenario.scribe.write(before, 3).await;
    let stream = StreamId::order(cast.orders[0]);
    let mut record = scenario.scribe.record(stream, &story[0].1);
    record.event_type = "FromTheFuture".into();
    scenario.scribe.append(Partition(0), vec![record]).await;
    scenario.scribe.write(after, 3).await;
    let projector = scenario.projector(in_bulk(64 << 20)).await;
    scenario.settle().await;
    let models = [ReadModel::Orders, ReadModel::Products, ReadModel::History];
    for model in models {
        rebuild::request(&scenario.pool, model).await.unwrap();
        until_serving(&scenario, &[model], 2).await;
        assert_eq!(scenario.dump(model, 2).await, scenario.dump(model, 1).await);
    }
    projector.stop().await;
    // All models are filled from one reading of the log, which continues for the models that do not
    // stop.
    for model in models {
        rebuild::request(&scenario.pool, model).await.unwrap();
    }
    let projector = scenario.projector(in_bulk(64 << 20)).await;
    until_serving(&scenario, &models, 3).await;
    for model in models {
        assert_eq!(scenario.dump(model, 3).await, scenario.dump(model, 1).await);
    }
    projector.stop().await;
}

/// First versions that wait for the same partition, then versions at different positions.
#[tokio::test(flavor = "multi_thread")]
async fn several_versions_are_filled_from_one_reading() {
    let mut scenario = Scenario::new(1).await;
    scenario.scribe.write(&story(70, 300).0, 2).await;
    let projector = scenario.projector(settings()).await;
    scenario.settle().await;
    projector.stop().await;
    let records: i64 = scenario.checkpoints(ReadModel::Orders, 1).await[0].0;
    let read = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&read);
    scenario.log = Arc::new(Doctored::new(Arc::clone(&scenario.log), move |_, _| {
        counted.fetch_add(1, Ordering::Relaxed);
        Seen::Plain
    }));
    let request = async |model| {
        rebuild::request(&scenario.pool, model).await.unwrap();
    };
    let models = [ReadModel::Customers, ReadModel::Orders, ReadModel::Products];
    for model in models {
        request(model).await;
    }
    let projector = scenario.projector(in_bulk(64 << 20)).await;
    until_serving(&scenario, &models, 2).await;
    projector.stop().await;
    let read = || read.load(Ordering::Relaxed) as i64;
    assert!(read() >= records);
    assert!(read() < records * 2, "{} instead of {records}", read());

    // One version is half filled when the others are requested.
    request(ReadModel::Orders).await;
    let projector = scenario.projector(in_bulk(1)).await;
    eventually("it has begun", async || scenario.checkpoints(ReadModel::Orders, 3).await[0].0 > 0)
        .await;
    drop(projector);
    request(ReadModel::Customers).await;
    request(ReadModel::Products).await;
    rebuild::pause(&scenario.pool, ReadModel::Customers).await.unwrap();
    let projector = scenario.projector(in_bulk(20_000)).await;
    until_serving(&scenario, &models[1..], 3).await;
    rebuild::resume(&scenario.pool, ReadModel::Customers).await.unwrap();
    until_serving(&scenario, &models, 3).await;
    for model in models {
        assert_eq!(scenario.dump(model, 2).await, scenario.dump(model, 1).await);
        assert_eq!(scenario.dump(model, 3).await, scenario.dump(model, 1).await);
    }
    projector.stop().await;
}
