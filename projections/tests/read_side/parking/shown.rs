//! A parked resource is not shown as if it were complete, and a version with parked streams does
//! not serve unnoticed.

use super::{ill, with_stream};
use crate::{
    doctored::Seen,
    scenario::{Scenario, eventually, settings},
};
use events::StreamKind;
use projections::{
    QueryError, ReadModel,
    history::Range,
    orders::Filter,
    parked,
    rebuild::{self, RebuildError, State},
};

/// A single read returns an error; a list shows the state before the stream was parked.
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
        // Only the owner may learn whose order it is.
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
    // A wrong switch would have happened during these checks.
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

    // A third version, which nobody accepts, is complete after the fix.
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
