//! Poison: an event that cannot be applied parks its stream, and no other.

use crate::{
    doctored::{Doctored, Seen},
    faults::undisturbed,
    scenario::{PATIENCE, Scenario, eventually, settings},
    shop::{Chance, Scribe, Story, story},
};
use events::{
    Event, Partition, Position, StreamId, StreamKind,
    log::{EventLog, RawRecord, embedded::EmbeddedLog},
    order, product,
};
use projections::{
    ProjectorSettings, QueryError, ReadModel,
    history::Range,
    orders::Filter,
    parked::{self, Outcome, ParkedStream, RetryError},
    rebuild::{self, RebuildError, State},
};
use sqlx::AssertSqlSafe;
use std::{sync::Arc, time::Duration};

/// The log of a scenario, with one event of a stream that looks different.
fn ill(scenario: &Scenario, stream: StreamId, version: u64, seen: Seen) -> Arc<Doctored> {
    let look = move |_, raw: &RawRecord| {
        let is = raw.record.stream == stream && raw.record.metadata.version == version;
        if is { seen } else { Seen::Plain }
    };
    Arc::new(Doctored::new(Arc::clone(&scenario.log), look))
}

/// What a projector makes of `log` if a stream ends before a version.
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

/// Each event is counted, wherever it went, and nothing has stopped.
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

/// A story, and a stream of a kind in it with at least so many events.
fn with_stream(seed: u64, kind: StreamKind, events: usize) -> (Story, StreamId) {
    let (story, _) = story(seed, 60);
    let count = |stream| story.iter().filter(|(of, _)| *of == stream).count();
    let fits = |stream: &StreamId| stream.kind == kind && count(*stream) >= events;
    let stream = story.iter().map(|(stream, _)| *stream).find(fits).unwrap();
    (story, stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_does_not_read_parks_its_stream_and_the_rest_goes_on() {
    let cases = [
        (Seen::Unknown, StreamKind::Order, ReadModel::Orders, "From\\0TheFuture"),
        (Seen::Newer, StreamKind::Product, ReadModel::Products, "schema version 99"),
        (Seen::Garbled, StreamKind::Customer, ReadModel::Customers, "does not read"),
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
        // And sales or search, which look at the same streams.
        assert!((2..=3).contains(&models.len()), "{found:?}");
        assert!(models.contains(&own) && models.contains(&ReadModel::History));
        for parked in found {
            assert!(parked.reason.contains(reason), "{}", parked.reason);
            assert_eq!((parked.stream, parked.stream_version), (stream, 3));
            assert_eq!((parked.position, parked.events), (events[2], events.len() as i64 - 2));
            assert_eq!(parked.last_position, *events.last().unwrap());
        }
        assert_eq!(scenario.dump_all().await, without(&plain, stream, 3).await);

        // The program is as it was: nothing comes of trying again.
        for retried in parked::retry(&scenario.pool, &scenario.log, stream).await.unwrap() {
            let Outcome::Parked { position, .. } = retried.outcome else { panic!("{retried:?}") };
            assert_eq!((position, retried.applied), (events[2], 0));
        }
        assert!(all(&scenario).await.iter().all(|it| it.tries == 1));
        assert_all_passed(&scenario).await;

        healer.heal();
        for retried in parked::retry(&scenario.pool, &scenario.log, stream).await.unwrap() {
            assert_eq!(retried.outcome, Outcome::Drained);
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

/// Events of the stream arrive all the while; those who feed it begin anew or wait, and none is lost or applied twice.
#[tokio::test(flavor = "multi_thread")]
async fn draining_meets_the_live_feed_without_gap_or_repeat() {
    for seed in 0..6 {
        let mut chance = Chance(seed);
        let mut scenario = Scenario::new(2).await;
        let (story, stream) = with_stream(50 + seed, StreamKind::Product, 4);
        scenario.scribe.write(&story, 5).await;
        let healer = ill(&scenario, stream, 2 + chance.below(3), Seen::Unknown);
        scenario.log = healer.clone();
        let settings = ProjectorSettings { max_events: 1 + chance.below(6) as usize, ..settings() };
        let projector = scenario.projector(settings).await;
        eventually("the stream is parked", async || all(&scenario).await.len() == 3).await;
        healer.heal();
        let (pool, log) = (scenario.pool.clone(), Arc::clone(&scenario.log));
        let delay = Duration::from_millis(chance.below(60));
        let retrying = tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            // Two at once do no harm.
            let both = tokio::join!(
                parked::retry(&pool, &log, stream),
                parked::retry(&pool, &log, stream)
            );
            [both.0, both.1]
        });
        let reason = product::StockReason::Received;
        for _ in 0..60 {
            let received: Event =
                product::Event::from(product::StockChanged { quantity: 1, reason }).into();
            scenario.scribe.write(&[(stream, received)], 1).await;
            tokio::time::sleep(Duration::from_millis(chance.below(4))).await;
        }
        for retried in retrying.await.unwrap() {
            let Ok(retried) = retried else { continue };
            assert!(retried.iter().all(|it| it.outcome == Outcome::Drained), "{retried:?}");
        }
        scenario.settle().await;
        assert_eq!(all(&scenario).await, []);
        assert_all_passed(&scenario).await;
        assert_eq!(scenario.dump_all().await, undisturbed(&scenario).await);
        projector.stop().await;
    }
}

/// More than one transaction takes, with a second poison event at the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_stream_is_drained_in_pieces_up_to_what_is_refused_still() {
    let mut scenario = Scenario::new(1).await;
    let stream = StreamId::product(Chance(1).id());
    let reason = product::StockReason::Received;
    let changes: Story = (0..3_500)
        .map(|_| {
            let change = product::StockChanged { quantity: 1, reason };
            (stream, product::Event::from(change).into())
        })
        .collect();
    scenario.scribe.write(&changes, 100).await;
    let worse = ill(&scenario, stream, 3_300, Seen::Garbled);
    let doctored =
        ill(&Scenario { log: worse.clone(), ..Scenario::new(1).await }, stream, 2, Seen::Newer);
    scenario.log = doctored.clone();
    let projector = scenario.projector(settings()).await;
    scenario.settle().await;
    assert_eq!(all(&scenario).await[0].events, 3_499);
    doctored.heal();
    // Healed as far as the first goes: its inside is ill still.
    let retried = parked::retry(&scenario.pool, &scenario.log, stream).await.unwrap();
    for retried in retried {
        assert_eq!(retried.applied, 3_298);
        assert!(matches!(retried.outcome, Outcome::Parked { .. }), "{retried:?}");
    }
    for parked in all(&scenario).await {
        assert_eq!((parked.stream_version, parked.events), (3_300, 201));
        assert!(parked.reason.contains("does not read"), "{}", parked.reason);
    }
    worse.heal();
    let retried = parked::retry(&scenario.pool, &scenario.log, stream).await.unwrap();
    assert!(retried.iter().all(|it| it.applied == 201 && it.outcome == Outcome::Drained));
    assert_all_passed(&scenario).await;
    assert_eq!(scenario.dump_all().await, undisturbed(&scenario).await);
    projector.stop().await;
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

/// A text that `PostgreSQL` cannot hold, among many events of one transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_the_database_refuses_parks_its_stream_only() {
    let mut scenario = Scenario::new(3).await;
    let (story, cast) = story(14, 40);
    let (before, after) = story.split_at(story.len() / 2);
    scenario.scribe.write(before, 5).await;
    let stream = StreamId::order(cast.orders[0]);
    let cancelled = order::Cancelled { reason: Some("nul \0".into()), mail: false };
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
    // The history can hold it.
    expected[3] = scenario.dump(ReadModel::History, 1).await;
    // So can the sums, which are of no text.
    expected[6] = scenario.dump(ReadModel::Sales, 1).await;
    assert_eq!(scenario.dump_all().await, expected);
    projector.stop().await;
}

/// The fix of a refusal can be one of the database.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_constraint_refuses_is_applied_once_it_is_gone() {
    let mut scenario = Scenario::new(2).await;
    let (story, _) = story(15, 60);
    let constraint = "alter table orders_v1.orders add constraint planted \
                      check (reason is distinct from 'second thoughts')";
    sqlx::query(constraint).execute(&scenario.pool).await.unwrap();
    scenario.scribe.write(&story, 5).await;
    let projector = scenario.projector(settings()).await;
    scenario.settle().await;
    assert_all_passed(&scenario).await;
    let found = all(&scenario).await;
    let cancelled = |event: &Event| matches!(event, Event::Order(order::Event::Cancelled(_)));
    assert_eq!(found.len(), story.iter().filter(|(_, event)| cancelled(event)).count());
    assert!(found.len() > 3 && found.iter().all(|it| it.reason.contains("planted")));
    sqlx::query("alter table orders_v1.orders drop constraint planted")
        .execute(&scenario.pool)
        .await
        .unwrap();
    for parked in found {
        let retried = parked::retry(&scenario.pool, &scenario.log, parked.stream).await.unwrap();
        assert_eq!(retried[0].outcome, Outcome::Drained);
    }
    assert_all_passed(&scenario).await;
    assert_eq!(scenario.dump_all().await, undisturbed(&scenario).await);
    projector.stop().await;
}

/// Whatever the database has, it is waited out: SQLSTATEs of what may be otherwise the next time.
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

/// A single read says that it cannot tell; a list shows what was there before.
#[tokio::test(flavor = "multi_thread")]
async fn a_parked_resource_is_not_shown_as_if_it_were_whole() {
    let mut scenario = Scenario::new(2).await;
    let (story, stream) = with_stream(16, StreamKind::Order, 4);
    scenario.scribe.write(&story, 5).await;
    scenario.log = ill(&scenario, stream, 2, Seen::Unknown);
    let projector = scenario.projector(settings()).await;
    scenario.settle().await;
    let other = story.iter().map(|(it, _)| *it).find(|it| it.kind == stream.kind && *it != stream);
    let range = Range { after: 0, up_to: u64::MAX, limit: 10 };
    for models in [scenario.models(), scenario.models_elsewhere()] {
        let parked = models.order(stream.id, None).await;
        assert!(matches!(parked, Err(QueryError::Parked { model: ReadModel::Orders, .. })));
        let history = models.history(stream, range).await;
        assert!(matches!(history, Err(QueryError::Parked { model: ReadModel::History, .. })));
        let other = models.order(other.unwrap().id, None).await.unwrap().unwrap();
        // Whose it is, only its owner may know.
        let listed = models.orders(&Filter::default(), None, 200).await.unwrap();
        let found = listed.items.iter().find(|order| order.order_id == stream.id).unwrap();
        assert_eq!(found.version, 1);
        let owner = models.order(stream.id, Some(found.customer_id)).await;
        assert!(matches!(owner, Err(QueryError::Parked { .. })));
        let stranger = models.order(stream.id, Some(other.order_id)).await;
        assert!(matches!(stranger, Ok(None)));
        assert_eq!(models.parked().await.unwrap().into_values().collect::<Vec<_>>(), [1, 1, 1]);
    }
    projector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_keeps_back_more_than_the_serving_one_serves_only_if_somebody_accepts_it() {
    let mut scenario = Scenario::new(2).await;
    let (pool, model) = (scenario.pool.clone(), ReadModel::Orders);
    let (story, stream) = with_stream(17, StreamKind::Order, 4);
    let (before, after) = story.split_at(story.len() - 10);
    scenario.scribe.write(before, 5).await;
    let projector = scenario.projector(settings()).await;
    scenario.settle().await;
    projector.stop().await;

    let healer = ill(&scenario, stream, 1, Seen::Unknown);
    scenario.log = healer.clone();
    rebuild::request(&pool, model).await.unwrap();
    let projector = scenario.projector(settings()).await;
    scenario.scribe.write(after, 5).await;
    scenario.settle().await;
    let status = async |version: u32| {
        let all = rebuild::status(&scenario.pool, &*scenario.log).await.unwrap();
        all.into_iter().find(|it| it.model == model && it.version == version).unwrap()
    };
    eventually("all but the parked stream is built", async || {
        let status = status(2).await;
        status.parked_streams == 1 && status.lag_events == status.parked_events
    })
    .await;
    // Had it been switched, it would have been within these looks.
    for _ in 0..10 {
        tokio::time::sleep(settings().tick).await;
        let status = status(2).await;
        assert_eq!((status.serving, status.state), (false, State::Building));
    }
    assert_eq!(rebuild::accept(&pool, model).await.unwrap(), 2);
    eventually("it serves", async || status(2).await.serving).await;
    assert_eq!(rebuild::rollback(&pool, model).await.unwrap(), 1);
    assert_eq!(rebuild::rollback(&pool, model).await.unwrap(), 2);
    assert_eq!(rebuild::rollback(&pool, model).await.unwrap(), 1);

    // A third one, that nobody accepts, is whole after the fix.
    sqlx::query("update control.version set with_parked = false").execute(&pool).await.unwrap();
    let refused = rebuild::rollback(&pool, model).await;
    assert!(matches!(refused, Err(RebuildError::Parked(_))), "{refused:?}");
    healer.heal();
    parked::retry(&pool, &scenario.log, stream).await.unwrap();
    assert_eq!(rebuild::rollback(&pool, model).await.unwrap(), 2);
    let first = scenario.dump(model, 1).await;
    assert_eq!(scenario.dump(model, 2).await, first);
    projector.stop().await;
}

/// Poison is rare. Where everything is refused, the program or its tables are the wrong ones.
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
