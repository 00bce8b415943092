//! New versions are compared with the serving one before they serve; rebuilds can be paused and
//! resumed.

use crate::{
    scenario::{Scenario, eventually, settings},
    shop::story,
};
use events::Position;
use projections::{
    ReadModel,
    rebuild::{self, Manner, RebuildError, RebuildStatus, VersionStatus},
};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

async fn version(scenario: &Scenario, model: ReadModel, number: u32) -> VersionStatus {
    let status = rebuild::status(&scenario.pool, &*scenario.log).await.unwrap();
    status.into_iter().find(|it| it.model == model && it.version == number).unwrap()
}

/// The result of comparing a new version.
async fn compared(scenario: &Scenario, model: ReadModel, number: u32) -> RebuildStatus {
    eventually("it is compared", async || {
        let rebuild = version(scenario, model, number).await.rebuild;
        rebuild.is_none_or(|rebuild| rebuild.verified.is_some())
    })
    .await;
    version(scenario, model, number).await.rebuild.unwrap()
}

/// The position of the stream's last event of this type.
fn position(scenario: &Scenario, stream: Uuid, event_type: &str) -> Option<Position> {
    let of = |(_, record): &&(Position, events::log::Record)| {
        record.stream.id == stream && record.event_type == event_type
    };
    scenario.scribe.written.iter().rev().find(of).map(|(at, _)| *at)
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_differ_are_named_with_their_event_and_do_not_come_to_serve() {
    let mut scenario = Scenario::new(3).await;
    let (story, cast) = story(70, 60);
    scenario.scribe.write(&story, 5).await;
    let projector = scenario.projector(settings()).await;
    scenario.settle().await;
    let priced = |id: &&Uuid| position(&scenario, **id, "OrderPriced").is_some();
    let order = *cast.orders.iter().find(priced).unwrap();
    let cases = [
        // The row contradicts the event.
        (ReadModel::Orders, order, "update orders_v1.orders set total = total + 1", "OrderPriced"),
        // The row is missing.
        (ReadModel::Orders, order, "delete from orders_v1.orders", "OrderPlaced"),
        // The row lacks the last of many events of the same type.
        (
            ReadModel::Products,
            cast.products[0],
            "update products_v1.products set reserved = reserved + 1",
            "",
        ),
    ];
    for (model, stream, sql, event) in cases {
        let key = model.as_str().trim_end_matches('s');
        let wrong = format!("{sql} where {key}_id = '{stream}'");
        sqlx::query(AssertSqlSafe(wrong)).execute(&scenario.pool).await.unwrap();
        assert_eq!(rebuild::request(&scenario.pool, model).await.unwrap(), 2);
        let found = compared(&scenario, model, 2).await;
        assert_eq!((found.verified, found.phase), (Some("different"), "different"));
        let [difference] = &found.differences[..] else { panic!("{found:?}") };
        assert_eq!(difference.key, stream.to_string());
        assert_ne!(difference.serving, difference.rebuilt);
        assert!(difference.position.is_some());
        if !event.is_empty() {
            assert_eq!(difference.position, position(&scenario, stream, event));
        }
        // The version is still fed but does not serve.
        scenario.scribe.write(&crate::shop::story(71, 5).0[..1], 1).await;
        scenario.settle().await;
        assert!(!version(&scenario, model, 2).await.serving);
        rebuild::cancel(&scenario.pool, model).await.unwrap();
    }
    projector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_changed_places_between_two_rows_are_seen() {
    let mut scenario = Scenario::new(1).await;
    let (story, cast) = story(76, 40);
    scenario.scribe.write(&story, 5).await;
    let projector = scenario.projector(settings()).await;
    scenario.settle().await;
    for (model, table, column) in [
        (ReadModel::Orders, "orders", "customer_id"),
        // A column of a type without its own hash function.
        (ReadModel::Orders, "orders", "items"),
        (ReadModel::Products, "products", "name"),
    ] {
        let key = format!("{}_id", model.as_str().trim_end_matches('s'));
        let swap = format!(
            "with two as (select min({key}::text)::uuid a, max({key}::text)::uuid b \
             from {model}_v1.{table}) update {model}_v1.{table} t set {column} = o.{column} \
             from two, {model}_v1.{table} o \
             where t.{key} in (a, b) and o.{key} in (a, b) and o.{key} <> t.{key}"
        );
        sqlx::query(AssertSqlSafe(swap.clone())).execute(&scenario.pool).await.unwrap();
        rebuild::request(&scenario.pool, model).await.unwrap();
        let found = compared(&scenario, model, 2).await;
        assert_eq!((found.verified, found.differences.len()), (Some("different"), 2), "{column}");
        rebuild::cancel(&scenario.pool, model).await.unwrap();
        sqlx::query(AssertSqlSafe(swap)).execute(&scenario.pool).await.unwrap();
    }
    assert!(cast.orders.len() > 1 && cast.products.len() > 1);
    projector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_only_compared_never_serves() {
    let mut scenario = Scenario::new(2).await;
    scenario.scribe.write(&story(72, 40).0, 5).await;
    let projector = scenario.projector(settings()).await;
    scenario.settle().await;
    let manner = Manner { verify_only: true, ..Manner::default() };
    for model in ReadModel::ALL {
        rebuild::request_all(&scenario.pool, &[model], manner).await.unwrap();
    }
    for model in ReadModel::ALL {
        let found = compared(&scenario, model, 2).await;
        assert_eq!((found.verified, found.differences.len()), (Some("equal"), 0), "{model}");
    }
    scenario.scribe.write(&story(73, 5).0, 5).await;
    scenario.settle().await;
    for model in ReadModel::ALL {
        assert!(version(&scenario, model, 1).await.serving);
        rebuild::cancel(&scenario.pool, model).await.unwrap();
    }
    projector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_rebuild_applies_nothing_until_it_is_resumed() {
    let mut scenario = Scenario::new(2).await;
    scenario.scribe.write(&story(74, 40).0, 5).await;
    let (pool, model) = (scenario.pool.clone(), ReadModel::Orders);
    let refused = rebuild::pause(&pool, model).await;
    assert!(matches!(refused, Err(RebuildError::NotUnderWay(ReadModel::Orders))));
    let gentle = Manner { gentle: true, ..Manner::default() };
    rebuild::request_all(&pool, &[model], gentle).await.unwrap();
    assert_eq!(rebuild::pause(&pool, model).await.unwrap(), 2);
    assert_eq!(rebuild::pause(&pool, model).await.unwrap(), 2);
    let projector = scenario.projector(settings()).await;
    // The serving version is still fed.
    scenario.settle().await;
    let held = version(&scenario, model, 2).await;
    assert_eq!((held.events, held.serving), (0, false));
    let rebuild = held.rebuild.unwrap();
    assert_eq!((rebuild.phase, rebuild.manner.gentle), ("paused", true));
    assert_eq!(rebuild::resume(&pool, model).await.unwrap(), 2);
    eventually("it serves", async || version(&scenario, model, 2).await.serving).await;
    assert!(version(&scenario, model, 2).await.rebuild.is_none());
    projector.stop().await;
}
