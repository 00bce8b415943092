//! New folds of the log: to check the serving version, to show it as of a past time, and to repair
//! single streams.

use crate::{
    doctored::{Doctored, Seen},
    faults::undisturbed,
    scenario::{Scenario, eventually, settings},
    shop::{Story, story},
};
use events::{
    Event, LogPosition, Position, StreamId, StreamKind, Timestamp,
    log::{EventLog, RawRecord, Record},
    product,
};
use projections::{
    ReadModel, parked,
    past::{self, Moment, PastError},
};
use sqlx::AssertSqlSafe;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

type Belongs = Box<dyn Fn(Position, &Record) -> bool + Send + Sync>;

const NOW: Timestamp = Timestamp::MAX_UTC;

/// The rows of a projector on the part of a log that `belongs` selects.
async fn only(
    scenario: &Scenario,
    belongs: impl Fn(Position, &Record) -> bool + Send + Sync + 'static,
) -> Vec<Vec<String>> {
    let look = move |partition, raw: &RawRecord| {
        let at = Position { partition, offset: raw.offset };
        if belongs(at, &raw.record) { Seen::Plain } else { Seen::Nothing }
    };
    let log: Arc<dyn EventLog> = Arc::new(Doctored::new(Arc::clone(&scenario.log), look));
    let quiet = Scenario::new(log.partitions()).await;
    undisturbed(&Scenario { log, ..quiet }).await
}

async fn schemas(scenario: &Scenario) -> Vec<String> {
    let query = "select nspname::text from pg_namespace where nspname !~ '^pg_' order by 1";
    sqlx::query_scalar(query).fetch_all(&scenario.pool).await.unwrap()
}

async fn run(scenario: &Scenario, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&scenario.pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn read_models_that_are_fed_are_what_the_log_says() {
    let mut scenario = Scenario::new(3).await;
    let (story, _) = story(70, 150);
    let (before, after) = story.split_at(story.len() / 2);
    scenario.scribe.write(before, 5).await;
    let poison = |_, raw: &RawRecord| {
        let is = raw.record.stream.id.as_u128().is_multiple_of(9);
        if is && raw.record.metadata.version == 2 { Seen::Newer } else { Seen::Plain }
    };
    let plain = Arc::clone(&scenario.log);
    scenario.log = Arc::new(Doctored::new(Arc::clone(&plain), poison));
    let projector = scenario.projector(settings()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (pool, log, stopping) =
        (scenario.pool.clone(), Arc::clone(&scenario.log), Arc::clone(&stop));
    let auditing = tokio::spawn(async move {
        let mut audits = 0;
        while !stopping.load(Ordering::Relaxed) || audits == 0 {
            for report in past::audit(&pool, &*log).await.unwrap() {
                assert_eq!((report.found, report.compared), (0, true), "{report:?}");
            }
            audits += 1;
        }
    });
    for part in after.chunks(10) {
        scenario.scribe.write(part, 3).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    scenario.settle().await;
    stop.store(true, Ordering::Relaxed);
    auditing.await.unwrap();
    let reports = past::audit(&scenario.pool, &*scenario.log).await.unwrap();
    assert_eq!(reports.len(), ReadModel::ALL.len());
    let parked = parked::list(&scenario.pool, None, 1_000).await.unwrap();
    assert!(!parked.is_empty());
    for report in &reports {
        let of = parked.iter().filter(|it| it.model == report.model).count();
        assert_eq!(report.parked, of as u64);
        assert_eq!(report.rows, scenario.dump(report.model, 1).await.len() as u64);
    }
    assert!(schemas(&scenario).await.iter().all(|name| !name.starts_with("audit")));
    projector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_in_which_rows_can_be_wrong_is_found_and_named() {
    let mut scenario = Scenario::new(2).await;
    let (story, cast) = story(71, 40);
    scenario.scribe.write(&story, 5).await;
    let projector = scenario.projector(settings()).await;
    scenario.settle().await;
    projector.stop().await;
    let [one, two, three] = [0, 1, 2].map(|n| cast.orders[n]);
    let wrongs = [
        (format!("update orders_v1.orders set reason = 'x' where order_id = '{one}'"), 2, one),
        (format!("delete from orders_v1.orders where order_id = '{two}'"), 1, two),
        (
            format!(
                "insert into orders_v1.orders select (o).* from (select jsonb_populate_record(o, \
                 '{{\"order_id\": \"{}\"}}') o from orders_v1.orders o where order_id = '{three}') w",
                uuid::Uuid::nil()
            ),
            1,
            uuid::Uuid::nil(),
        ),
    ];
    let mut expected = 0;
    for (wrong, found, id) in wrongs {
        run(&scenario, &wrong).await;
        expected += found;
        let reports = past::audit(&scenario.pool, &*scenario.log).await.unwrap();
        for report in reports {
            if report.model == ReadModel::Orders {
                assert_eq!(report.found, expected, "{report:?}");
                let named = |it: &past::UnmatchedRow| it.row.contains(&id.to_string());
                assert!(report.differences.iter().any(named), "{report:?}");
            } else {
                assert_eq!(report.found, 0, "{report:?}");
            }
        }
    }
    // The stream cannot be applied, but is not parked.
    let poison = move |_, raw: &RawRecord| {
        let is = raw.record.stream == StreamId::product(cast.products[0]);
        if is { Seen::Unknown } else { Seen::Plain }
    };
    let log = Doctored::new(Arc::clone(&scenario.log), poison);
    let reports = past::audit(&scenario.pool, &log).await.unwrap();
    let of = |model| reports.iter().find(|it| it.model == model).unwrap();
    assert_eq!(of(ReadModel::Products).refused.len(), 1);
    assert!(of(ReadModel::Customers).refused.is_empty());
    // Other code wrote this version, so it cannot be compared.
    run(&scenario, "update control.version set fingerprint = 'other' where projection = 'orders'")
        .await;
    let reports = past::audit(&scenario.pool, &*scenario.log).await.unwrap();
    assert_eq!(reports.iter().filter(|it| !it.compared && it.found == 0).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_model_as_it_was_is_what_the_log_was() {
    let mut scenario = Scenario::new(3).await;
    let (story, _) = story(72, 80);
    scenario.scribe.write(&story, 4).await;
    let written: Vec<(Position, Record)> = scenario.scribe.written.clone();
    let time = written[written.len() / 3].1.time;
    let (named, named_record) = written[written.len() / 2].clone();
    let other = written.iter().find(|(at, _)| at.partition != named.partition).unwrap().0;
    let token = LogPosition::from_iter([named, other]);
    let latest = named_record.time;
    let by_time = Box::new(move |_: Position, record: &Record| record.time <= time);
    let by_token = Box::new(move |at: Position, record: &Record| match at.partition {
        partition if partition == named.partition => at.offset <= named.offset,
        partition if partition == other.partition => at.offset <= other.offset,
        _ => record.time <= latest,
    });
    let moments: [(Moment, Belongs); 2] =
        [(Moment::Time(time), by_time), (Moment::Token(token.clone()), by_token)];
    for (moment, belongs) in moments {
        let expected = only(&scenario, belongs).await;
        assert!(expected.iter().all(|rows| !rows.is_empty()));
        for (model, expected) in ReadModel::ALL.into_iter().zip(expected) {
            // A second fold must give the same rows.
            for _ in 0..2 {
                let log = &*scenario.log;
                let past = past::as_of(&scenario.pool, log, model, &moment, NOW).await.unwrap();
                assert_eq!(past.refused, []);
                let rows = scenario.dump_schema(&past.schema).await;
                assert_eq!(rows, expected, "{model} {moment:?}");
            }
        }
    }
    let found = schemas(&scenario).await;
    assert_eq!(found.iter().filter(|name| name.contains("_as_of_")).count(), 14, "{found:?}");

    let refused = async |moment: &str, now| {
        let moment = moment.parse().unwrap();
        past::as_of(&scenario.pool, &*scenario.log, ReadModel::Orders, &moment, now).await
    };
    let early = time - chrono::TimeDelta::seconds(1);
    let future = refused(&time.to_rfc3339(), early).await;
    assert!(matches!(future, Err(PastError::Future(it)) if it == time));
    for nowhere in ["0:99999999", "77:1"] {
        assert!(matches!(refused(nowhere, NOW).await, Err(PastError::NoSuchEvent(_))), "{nowhere}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_is_mended_while_its_partition_is_fed() {
    let mut scenario = Scenario::new(1).await;
    let (story, cast) = story(73, 60);
    scenario.scribe.write(&story, 5).await;
    let projector = scenario.projector(settings()).await;
    scenario.settle().await;
    let stream = StreamId::product(cast.products[0]);
    let reason = product::StockReason::Received;
    let changes: Story = (0..20)
        .map(|_| {
            let change = product::StockChanged { quantity: 1, reason };
            (stream, Event::from(product::Event::from(change)))
        })
        .collect();
    for (round, model) in [ReadModel::Products, ReadModel::History].into_iter().enumerate() {
        let id = stream.id;
        run(
            &scenario,
            &match model {
                ReadModel::Products => {
                    format!(
                        "update products_v1.products set name = 'wrong' where product_id = '{id}'"
                    )
                }
                _ => format!(
                    "delete from history_v1.history where stream_id = '{id}' and version < 3"
                ),
            },
        )
        .await;
        let (pool, log) = (scenario.pool.clone(), Arc::clone(&scenario.log));
        let mending =
            tokio::spawn(async move { past::rebuild_stream(&pool, &*log, model, stream).await });
        for part in changes.chunks(1 + round) {
            scenario.scribe.write(part, 1).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let rebuilt = mending.await.unwrap().unwrap();
        assert_eq!(rebuilt.version, 1);
        scenario.settle().await;
        assert_eq!(scenario.dump_all().await, undisturbed(&scenario).await);
    }
    let (pool, log) = (&scenario.pool, &*scenario.log);
    let no = past::rebuild_stream(pool, log, ReadModel::Orders, stream).await;
    assert!(matches!(no, Err(PastError::NotOfStream { .. })));
    projector.stop().await;
    assert!(schemas(&scenario).await.iter().all(|name| !name.starts_with("stream")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_stream_is_tried_again_and_not_rebuilt() {
    let mut scenario = Scenario::new(1).await;
    let (story, _) = story(74, 20);
    scenario.scribe.write(&story, 5).await;
    let stream = story.iter().map(|(it, _)| *it).find(|it| it.kind == StreamKind::Order).unwrap();
    let poison = move |_, raw: &RawRecord| {
        let is = raw.record.stream == stream && raw.record.metadata.version == 2;
        if is { Seen::Garbled } else { Seen::Plain }
    };
    let plain = Arc::clone(&scenario.log);
    scenario.log = Arc::new(Doctored::new(Arc::clone(&plain), poison));
    let projector = scenario.projector(settings()).await;
    eventually("it is parked", async || {
        parked::list(&scenario.pool, None, 9).await.unwrap().len() == 3
    })
    .await;
    scenario.settle().await;
    let before = scenario.dump_all().await;
    let parked = past::rebuild_stream(&scenario.pool, &*plain, ReadModel::Orders, stream).await;
    assert!(matches!(parked, Err(PastError::Parked(it)) if it == stream));
    assert_eq!(scenario.dump_all().await, before);
    projector.stop().await;
}
