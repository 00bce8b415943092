//! Poison events: an event that cannot be applied parks its stream and no other stream.

mod draining;
mod shown;

use crate::{
    doctored::{Doctored, Seen},
    faults::undisturbed,
    scenario::{PATIENCE, Scenario, eventually, settings},
    shop::{Chance, Scribe, Story, story},
};
use events::{
    Partition, Position, StreamId, StreamKind,
    log::{EventLog, RawRecord, embedded::EmbeddedLog},
    order,
};
use projections::{
    ProjectorSettings, ReadModel,
    parked::{self, ParkedStream, Retried, RetryError},
};
use sqlx::AssertSqlSafe;
use std::sync::Arc;

/// The log of a scenario, with one event of a stream shown differently.
fn ill(scenario: &Scenario, stream: StreamId, version: u64, seen: Seen) -> Arc<Doctored> {
    let look = move |_, raw: &RawRecord| {
        let is = raw.record.stream == stream && raw.record.metadata.version == version;
        if is { seen } else { Seen::Plain }
    };
    Arc::new(Doctored::new(Arc::clone(&scenario.log), look))
}

/// The rows of a projector on `log` if a stream ends before a version.
async fn without(log: &Arc<dyn EventLog>, stream: StreamId, version: u64) -> Vec<Vec<String>> {
    let look = move |_, raw: &RawRecord| {
        let cut = raw.record.stream == stream && raw.record.metadata.version >= version;
        if cut { Seen::Nothing } else { Seen::Plain }
    };
    let log: Arc<dyn EventLog> = Arc::new(Doctored::new(Arc::clone(log), look));
    let quiet = Scenario::new(log.partitions()).await;
    undisturbed(&Scenario { log, ..quiet }).await
}

async fn all(scenario: &Scenario) -> Vec<ParkedStream> {
    parked::list(&scenario.pool, None, 1_000).await.unwrap()
}

/// Every event is counted, applied or kept back, and no partition has stopped.
async fn assert_all_passed(scenario: &Scenario) {
    for model in ReadModel::ALL {
        let checkpoints = scenario.checkpoints(model, 1).await;
        assert!(checkpoints.iter().all(|(_, stopped)| stopped.is_none()), "{checkpoints:?}");
        let events: i64 = checkpoints.iter().map(|(events, _)| events).sum();
        assert_eq!(events, scenario.scribe.written.len() as i64, "{model}");
    }
    let counted: i64 = sqlx::query_scalar("select sum(parked) from control.checkpoint")
        .fetch_one(&scenario.pool)
        .await
        .unwrap();
    assert_eq!(counted, all(scenario).await.len() as i64);
}

fn events_of(scenario: &Scenario, stream: StreamId) -> Vec<Position> {
    let of = scenario.scribe.written.iter().filter(|(_, record)| record.stream == stream);
    of.map(|(position, _)| *position).collect()
}

/// A story, and a stream of this kind in it with at least `events` events.
fn with_stream(seed: u64, kind: StreamKind, events: usize) -> (Story, StreamId) {
    let (story, _) = story(seed, 60);
    let count = |stream| story.iter().filter(|(of, _)| *of == stream).count();
    let fits = |stream: &StreamId| stream.kind == kind && count(*stream) >= events;
    let stream = story.iter().map(|(stream, _)| *stream).find(fits).unwrap();
    (story, stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_cannot_be_decoded_parks_its_stream_and_no_other() {
    let cases = [
        (Seen::Unknown, StreamKind::Order, ReadModel::Orders, "From\\0TheFuture"),
        (Seen::Newer, StreamKind::Product, ReadModel::Products, "schema version 99"),
        (Seen::Garbled, StreamKind::Customer, ReadModel::Customers, "cannot be decoded"),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (seed, (seen, kind, own, reason)) in (40..).zip(cases) {
        let mut scenario = Scenario::new(3).await;
        if kind == StreamKind::Product {
            let log = EmbeddedLog::open(folder.path(), Some(3)).unwrap();
            scenario.log = Arc::new(log);
            scenario.scribe = Scribe::new(Arc::clone(&scenario.log));
        }
        let (story, stream) = with_stream(seed, kind, 4);
        let (before, after) = story.split_at(story.len() / 2);
        scenario.scribe.write(before, 5).await;
        let plain = Arc::clone(&scenario.log);
        let healer = ill(&scenario, stream, 3, seen);
        scenario.log = healer.clone();
        let settings = ProjectorSettings { max_events: 15, ..settings() };
        let projector = scenario.projector(settings).await;
        scenario.scribe.write(after, 3).await;
        scenario.settle().await;
        assert_all_passed(&scenario).await;

        let events = events_of(&scenario, stream);
        let found = all(&scenario).await;
        let models: Vec<_> = found.iter().map(|it| it.model).collect();
        // Sales or search also read these streams.
        assert!((2..=3).contains(&models.len()), "{found:?}");
        assert!(models.contains(&own) && models.contains(&ReadModel::History));
        for parked in found {
            assert!(parked.reason.contains(reason), "{}", parked.reason);
            assert_eq!((parked.stream, parked.stream_version), (stream, 3));
            assert_eq!((parked.position, parked.events), (events[2], events.len() as i64 - 2));
            assert_eq!(parked.last_position, *events.last().unwrap());
        }
        assert_eq!(scenario.dump_all().await, without(&plain, stream, 3).await);

        // The program is unchanged, so a retry has no effect.
        for retried in parked::retry(&scenario.pool, &scenario.log, stream).await.unwrap() {
            let Retried::Parked { position, .. } = retried.result else { panic!("{retried:?}") };
            assert_eq!((position, retried.applied), (events[2], 0));
        }
        assert!(all(&scenario).await.iter().all(|it| it.tries == 1));
        assert_all_passed(&scenario).await;

        healer.heal();
        for retried in parked::retry(&scenario.pool, &scenario.log, stream).await.unwrap() {
            assert_eq!(retried.result, Retried::Drained);
            assert_eq!(retried.applied, events.len() as u64 - 2);
        }
        assert_eq!(all(&scenario).await, []);
        let again = parked::retry(&scenario.pool, &scenario.log, stream).await;
        assert!(matches!(again, Err(RetryError::NotParked(_))));
        assert_all_passed(&scenario).await;
        assert_eq!(scenario.dump_all().await, undisturbed(&scenario).await);
        projector.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_version_parks_the_stream_where_versions_count() {
    let mut scenario = Scenario::new(2).await;
    let (story, stream) = with_stream(13, StreamKind::Order, 5);
    let plain = Arc::clone(&scenario.log);
    scenario.scribe.write(&story, 7).await;
    scenario.log = ill(&scenario, stream, 3, Seen::Nothing);
    let projector = scenario.projector(settings()).await;
    scenario.settle().await;
    let found = all(&scenario).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].model, found[0].stream_version), (ReadModel::Orders, 4));
    assert!(found[0].reason.contains("version 4") && found[0].reason.contains("after version 2"));
    let expected = without(&plain, stream, 3).await;
    assert_eq!(scenario.dump(ReadModel::Orders, 1).await, expected[0]);
    projector.stop().await;
}

/// A text that `PostgreSQL` cannot store, among many events of one transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_the_database_refuses_parks_its_stream_only() {
    let mut scenario = Scenario::new(3).await;
    let (story, cast) = story(14, 40);
    let (before, after) = story.split_at(story.len() / 2);
    scenario.scribe.write(before, 5).await;
    let stream = StreamId::order(cast.orders[0]);
    let cancelled =
        order::Cancelled { reason: None, plain_reason: Some("nul \0".into()), mail: false };
    scenario.scribe.write(&[(stream, order::Event::from(cancelled).into())], 1).await;
    scenario.scribe.write(after, 5).await;
    let poison = scenario.scribe.written.iter().find(|(_, record)| {
        record.stream == stream && record.body.windows(6).any(|it| it == b"\\u0000")
    });
    let (position, version) = poison.map(|(at, it)| (*at, it.metadata.version)).unwrap();
    let projector = scenario.projector(ProjectorSettings { groups: 1, ..settings() }).await;
    scenario.settle().await;
    assert_all_passed(&scenario).await;
    let found = all(&scenario).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].model, found[0].position), (ReadModel::Orders, position));
    let mut expected = without(&scenario.log, stream, version).await;
    // The history can store it.
    expected[3] = scenario.dump(ReadModel::History, 1).await;
    // The sales sums contain no text, so they are not affected.
    expected[6] = scenario.dump(ReadModel::Sales, 1).await;
    assert_eq!(scenario.dump_all().await, expected);
    projector.stop().await;
}

/// These SQLSTATEs are temporary faults of the database, so the projector retries until they pass.
#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_the_database_parks_nothing() {
    let codes = ["40001", "40P01", "53100", "53200", "55P03", "57014", "57P01", "58030", "42P01"];
    for (seed, code) in (60..).zip(codes) {
        let mut scenario = Scenario::new(1).await;
        let faulty = format!(
            "create sequence tries; \
             create function fail() returns trigger language plpgsql as $$ begin \
             if nextval('tries') < 4 then \
             raise exception 'not now' using errcode = '{code}'; end if; return new; end $$; \
             create trigger fail before insert on orders_v1.orders execute function fail()"
        );
        sqlx::raw_sql(AssertSqlSafe(faulty)).execute(&scenario.pool).await.unwrap();
        scenario.scribe.write(&story(seed, 10).0, 5).await;
        let projector = scenario.projector(settings()).await;
        scenario.settle().await;
        assert_eq!(all(&scenario).await, [], "{code}");
        let tries: i64 = sqlx::query_scalar("select last_value from tries")
            .fetch_one(&scenario.pool)
            .await
            .unwrap();
        assert!(tries >= 4);
        assert_all_passed(&scenario).await;
        projector.stop().await;
    }
}

/// Poison is rare. If every event is refused, the program or its tables must be wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_where_everything_is_poison_stops() {
    let mut scenario = Scenario::new(1).await;
    let mut chance = Chance(18);
    let story: Story = (0..1_100)
        .map(|_| {
            (StreamId::order(chance.id()), order::Event::from(order::Confirmed::default()).into())
        })
        .collect();
    scenario.scribe.write(&story, 100).await;
    let projector = scenario.projector(settings()).await;
    eventually("it stops", async || {
        let checkpoints = scenario.checkpoints(ReadModel::Orders, 1).await;
        checkpoints[0].1.as_deref().is_some_and(|reason| reason.contains("more than 1000"))
    })
    .await;
    for model in [ReadModel::Products, ReadModel::Customers, ReadModel::History] {
        scenario.models().wait_for_end(model, Partition(0), PATIENCE).await.unwrap();
    }
    projector.stop().await;
}
