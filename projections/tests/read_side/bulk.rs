//! New versions filled in bulk.

use crate::{
    scenario::{Scenario, eventually, settings},
    shop::story,
};
use events::{Partition, StreamId};
use projections::{ProjectorSettings, ReadModel, rebuild};

/// Whatever is behind at all is filled in bulk.
fn in_bulk(bulk_bytes: usize) -> ProjectorSettings {
    ProjectorSettings { close: 0, bulk_bytes, ..settings() }
}

async fn until_serving(scenario: &Scenario, version: u32) {
    eventually("every new version serves", async || {
        let status = rebuild::status(&scenario.pool, &*scenario.log).await.unwrap();
        let serving = status.iter().filter(|it| it.serving && it.version == version);
        serving.count() == ReadModel::ALL.len()
    })
    .await;
}

/// The indexes of a version's table, by what they are made of.
async fn indexes(scenario: &Scenario, version: u32) -> Vec<String> {
    let query = "select regexp_replace(indexdef, '_v[0-9]+', '') from pg_indexes \
                 where schemaname like '%\\_v' || $1::text order by 1";
    sqlx::query_scalar(query).bind(version.to_string()).fetch_all(&scenario.pool).await.unwrap()
}

/// With room for whole partitions, for some events, and for next to none: then every stream goes on in another part.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_filled_in_bulk_is_what_is_fed_event_by_event() {
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
        until_serving(&scenario, version).await;
        for model in ReadModel::ALL {
            let first = scenario.dump(model, 1).await;
            assert_eq!(scenario.dump(model, version).await, first, "{model}, {bulk_bytes} bytes");
            let (ours, theirs) = (version as i32, 1);
            let checkpoints = scenario.checkpoints(model, ours).await;
            assert_eq!(checkpoints, scenario.checkpoints(model, theirs).await);
        }
        assert_eq!(indexes(&scenario, version).await, indexes(&scenario, 1).await);
        // What comes next is fed as ever.
        scenario.scribe.write(&story(41 + u64::from(version), 5).0, 4).await;
        scenario.settle().await;
        projector.stop().await;
    }
}

/// A projector that ends while it fills is continued by the next one, part by part.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_filled_before_an_end_is_not_filled_again() {
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
    eventually("it serves", async || {
        let status = rebuild::status(&scenario.pool, &*scenario.log).await.unwrap();
        status.iter().any(|it| it.model == model && it.version == 2 && it.serving)
    })
    .await;
    assert_eq!(scenario.dump(model, 2).await, scenario.dump(model, 1).await);
    projector.stop().await;
}

/// A partition with an event that does not read is filled up to there and left to the feed, which parks the stream.
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
    for model in [ReadModel::Orders, ReadModel::Products, ReadModel::History] {
        rebuild::request(&scenario.pool, model).await.unwrap();
        eventually("the rebuild serves", async || {
            let status = rebuild::status(&scenario.pool, &*scenario.log).await.unwrap();
            status.iter().any(|it| it.model == model && it.version == 2 && it.serving)
        })
        .await;
        assert_eq!(scenario.dump(model, 2).await, scenario.dump(model, 1).await);
    }
    projector.stop().await;
}
