//! Events that were kept back are applied after a fix.

use super::{all, assert_all_passed, ill, with_stream};
use crate::{
    doctored::Seen,
    faults::undisturbed,
    scenario::{Scenario, eventually, settings},
    shop::{Chance, Story, story},
};
use events::{Event, StreamId, StreamKind, order, product};
use projections::{
    ProjectorSettings,
    parked::{self, Retried},
};
use std::{sync::Arc, time::Duration};

/// Events of the stream arrive during the draining. Its feeds restart or wait, and no event is lost
/// or applied twice.
#[tokio::test(flavor = "multi_thread")]
async fn draining_meets_the_live_feed_without_gap_or_repeat() {
    for seed in 0..3 {
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
            // Two retries at once do no harm.
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
            assert!(retried.iter().all(|it| it.result == Retried::Drained), "{retried:?}");
        }
        scenario.settle().await;
        assert_eq!(all(&scenario).await, []);
        assert_all_passed(&scenario).await;
        assert_eq!(scenario.dump_all().await, undisturbed(&scenario).await);
        projector.stop().await;
    }
}

/// The stream needs more than one transaction and has a second poison event at its end.
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
    // Only the first poison event is fixed; the second one is still poison.
    let retried = parked::retry(&scenario.pool, &scenario.log, stream).await.unwrap();
    for retried in retried {
        assert_eq!(retried.applied, 3_298);
        assert!(matches!(retried.result, Retried::Parked { .. }), "{retried:?}");
    }
    for parked in all(&scenario).await {
        assert_eq!((parked.stream_version, parked.events), (3_300, 201));
        assert!(parked.reason.contains("cannot be decoded"), "{}", parked.reason);
    }
    worse.heal();
    let retried = parked::retry(&scenario.pool, &scenario.log, stream).await.unwrap();
    assert!(retried.iter().all(|it| it.applied == 201 && it.result == Retried::Drained));
    assert_all_passed(&scenario).await;
    assert_eq!(scenario.dump_all().await, undisturbed(&scenario).await);
    projector.stop().await;
}

/// A change in the database can be the fix.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_constraint_refuses_is_applied_once_it_is_gone() {
    let mut scenario = Scenario::new(2).await;
    let (story, _) = story(15, 60);
    let constraint = "alter table orders_v1.orders add constraint planted \
                      check (status <> 'cancelled')";
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
        assert_eq!(retried[0].result, Retried::Drained);
    }
    assert_all_passed(&scenario).await;
    assert_eq!(scenario.dump_all().await, undisturbed(&scenario).await);
    projector.stop().await;
}
