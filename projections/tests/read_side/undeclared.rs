//! A program whose code makes different rows under the same revision notices that at its start.

use crate::{
    scenario::{Scenario, eventually, settings},
    shop::story,
};
use projections::{
    Planted, Projector, ProjectorSettings, ReadModel, StaleModel, golden, past,
    rebuild::{self, Manner, RebuildError, State, VersionStatus},
};
use sqlx::AssertSqlSafe;

const ORDERS: ReadModel = ReadModel::Orders;

async fn version(scenario: &Scenario, model: ReadModel, number: u32) -> VersionStatus {
    let status = rebuild::status(&scenario.pool, &*scenario.log).await.unwrap();
    status.into_iter().find(|it| it.model == model && it.version == number).unwrap()
}

async fn run(scenario: &Scenario, sql: &str) -> u64 {
    let done = sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&scenario.pool).await;
    done.unwrap().rows_affected()
}

/// The notes as text, for comparison.
async fn notes(scenario: &Scenario) -> Vec<String> {
    let query = "select c::text from control.code c order by 1";
    sqlx::query_scalar(query).fetch_all(&scenario.pool).await.unwrap()
}

/// Starts a projector of another build, whose orders have no addresses.
async fn other_build(scenario: &Scenario) -> Projector {
    scenario.projector(ProjectorSettings { planted: Planted::OtherRows, ..settings() }).await
}

async fn caught_up(scenario: &Scenario, model: ReadModel, number: u32) {
    eventually("it is fed", async || version(scenario, model, number).await.lag_events == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undeclared_change_is_found_told_and_not_fed() {
    let mut scenario = Scenario::new(2).await;
    let (story, cast) = story(90, 60);
    let (before, after) = story.split_at(story.len() / 2);
    scenario.scribe.write(before, 10).await;
    let projector = other_build(&scenario).await;
    scenario.settle().await;
    projector.stop().await;
    let rows = scenario.dump(ORDERS, 1).await;

    let projector = scenario.projector(settings()).await;
    scenario.scribe.write(after, 10).await;
    for model in ReadModel::ALL.into_iter().filter(|model| *model != ORDERS) {
        caught_up(&scenario, model, 1).await;
        assert_eq!(version(&scenario, model, 1).await.stale, None, "{model}");
    }
    let found = version(&scenario, ORDERS, 1).await;
    assert_eq!((found.state, found.serving), (State::Stale, true));
    assert!(found.lag_events > 0);
    let reason = found.stale.unwrap();
    assert!(reason.contains("gives other rows under the same revision"), "{reason}");
    assert!(reason.contains("orderlog rebuild orders --accept"), "{reason}");
    let stale = StaleModel { model: ORDERS, version: 1, reason, rebuilding: false };
    assert_eq!(scenario.models().stale().await.unwrap(), [stale]);
    // The existing rows are shown and stay unchanged.
    assert_eq!(scenario.dump(ORDERS, 1).await, rows);
    let mut shown = 0;
    for order in &cast.orders {
        shown += usize::from(scenario.models().order(*order, None).await.unwrap().is_some());
    }
    assert!(shown > 0);
    let anew = past::rebuild_stream(
        &scenario.pool,
        &*scenario.log,
        ORDERS,
        events::StreamId::order(cast.orders[0]),
    );
    assert!(anew.await.unwrap_err().to_string().contains("another build"));

    // A rebuild with this code is marked as undeclared, and serves once an operator accepts it.
    assert!(matches!(
        rebuild::accept(&scenario.pool, ORDERS).await,
        Err(RebuildError::NotUnderWay(ORDERS))
    ));
    assert_eq!(rebuild::request(&scenario.pool, ORDERS).await.unwrap(), 2);
    eventually("it is compared", async || {
        version(&scenario, ORDERS, 2).await.rebuild.unwrap().verified.is_some()
    })
    .await;
    caught_up(&scenario, ORDERS, 2).await;
    let new = version(&scenario, ORDERS, 2).await;
    let rebuild = new.rebuild.unwrap();
    assert_eq!((rebuild.verified, rebuild.phase), (Some("undeclared"), "different"));
    assert_eq!((new.state, new.serving), (State::Building, false));
    assert_eq!(rebuild::accept(&scenario.pool, ORDERS).await.unwrap(), 2);
    eventually("it serves", async || version(&scenario, ORDERS, 2).await.serving).await;
    scenario.settle().await;
    assert!(scenario.models().stale().await.unwrap().is_empty());
    let addressed = "select count(shipping_address) from orders_v2.orders";
    let addressed: i64 = sqlx::query_scalar(addressed).fetch_one(&scenario.pool).await.unwrap();
    assert!(addressed > 0);
    projector.stop().await;
}

/// In a rolling deployment each build feeds the versions for which it makes the same rows, in any
/// order of starts.
#[tokio::test(flavor = "multi_thread")]
async fn two_builds_beside_each_other_do_not_dispute_a_version() {
    let mut scenario = Scenario::new(2).await;
    let (story, _) = story(91, 40);
    let (before, after) = story.split_at(story.len() / 2);
    scenario.scribe.write(before, 10).await;
    let old = other_build(&scenario).await;
    scenario.settle().await;
    let new = scenario.projector(settings()).await;
    // One of them has noticed the change by then.
    rebuild::request(&scenario.pool, ORDERS).await.unwrap();
    eventually("it is compared", async || {
        version(&scenario, ORDERS, 2).await.rebuild.unwrap().verified.is_some()
    })
    .await;
    scenario.scribe.write(after, 10).await;
    for number in [1, 2] {
        caught_up(&scenario, ORDERS, number).await;
    }
    let addressed = async |number: u32| -> i64 {
        let query = format!("select count(shipping_address) from orders_v{number}.orders");
        sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&scenario.pool).await.unwrap()
    };
    assert_eq!(addressed(1).await, 0, "only the old build feeds its version");
    assert!(addressed(2).await > 0, "only the new build feeds its version");
    let noted = notes(&scenario).await;
    old.stop().await;
    new.stop().await;
    for _ in 0..2 {
        other_build(&scenario).await.stop().await;
        scenario.projector(settings()).await.stop().await;
    }
    assert_eq!(notes(&scenario).await, noted);
}

/// An unreleased program can show the rows that it would make, beside the serving program.
#[tokio::test(flavor = "multi_thread")]
async fn what_other_code_would_say_is_told_and_changes_nothing() {
    let mut scenario = Scenario::new(2).await;
    let (story, cast) = story(96, 40);
    scenario.scribe.write(&story, 10).await;
    let released = other_build(&scenario).await;
    scenario.settle().await;
    let unreleased = scenario.projector(settings()).await;
    let manner = Manner { verify_only: true, ..Manner::default() };
    rebuild::request_all(&scenario.pool, &[ORDERS], manner).await.unwrap();
    let compared = async || version(&scenario, ORDERS, 2).await.rebuild.unwrap();
    eventually("it is compared", async || compared().await.verified.is_some()).await;
    let found = compared().await;
    assert_eq!(found.verified, Some("different"));
    let difference = found.differences.first().unwrap();
    assert!(cast.orders.iter().any(|order| difference.key == order.to_string()));
    assert!(difference.serving.as_ref().unwrap().contains("\"shipping_address\": null"));
    assert!(!difference.rebuilt.as_ref().unwrap().contains("\"shipping_address\": null"));
    // The log continues, and the released program serves.
    scenario.scribe.write(&crate::shop::story(97, 5).0[..1], 1).await;
    caught_up(&scenario, ORDERS, 1).await;
    assert!(version(&scenario, ORDERS, 1).await.serving);
    rebuild::cancel(&scenario.pool, ORDERS).await.unwrap();
    unreleased.stop().await;
    released.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_build_that_makes_the_same_rows_goes_on_with_them() {
    let mut scenario = Scenario::new(2).await;
    let (story, _) = story(92, 20);
    let (before, after) = story.split_at(story.len() / 2);
    scenario.scribe.write(before, 10).await;
    let projector = scenario.projector(settings()).await;
    scenario.settle().await;
    projector.stop().await;
    let others = run(&scenario, "update control.code set sources = 'another build'").await;
    assert_eq!(others, ReadModel::ALL.len() as u64);
    scenario.scribe.write(after, 10).await;
    let projector = scenario.projector(settings()).await;
    scenario.settle().await;
    projector.stop().await;
    assert!(scenario.models().stale().await.unwrap().is_empty());
    assert_eq!(notes(&scenario).await.len(), 2 * ReadModel::ALL.len());
}

/// Makes every new fold of the golden slice fail; a build that needs one feeds nothing.
const NO_FOLD: &str = "create function refuse() returns event_trigger language plpgsql as $$ begin \
    if exists (select from pg_event_trigger_ddl_commands() where object_identity like 'golden%') \
    then raise exception 'the slice is folded'; end if; end $$; \
    create event trigger no_fold on ddl_command_end when tag in ('CREATE SCHEMA') \
    execute function refuse()";

#[tokio::test(flavor = "multi_thread")]
async fn the_same_build_folds_the_slice_once() {
    let mut scenario = Scenario::new(2).await;
    let (story, _) = story(93, 20);
    let projector = scenario.projector(settings()).await;
    scenario.settle().await;
    projector.stop().await;
    sqlx::raw_sql(NO_FOLD).execute(&scenario.pool).await.unwrap();
    let noted = notes(&scenario).await;
    scenario.scribe.write(&story, 10).await;
    let projector = scenario.projector(settings()).await;
    scenario.settle().await;
    rebuild::request(&scenario.pool, ORDERS).await.unwrap();
    eventually("it serves", async || version(&scenario, ORDERS, 2).await.serving).await;
    projector.stop().await;
    assert_eq!(notes(&scenario).await, noted);
}

/// The golden slice only grows. A version is compared by the part of the slice with which it was
/// marked.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_compared_by_the_part_of_the_slice_with_which_it_was_marked() {
    let mut scenario = Scenario::new(1).await;
    let shorter = golden::events() - 20;
    let digest = golden::digest(&scenario.pool, ORDERS, shorter).await.unwrap();
    assert_ne!(digest, golden::digest(&scenario.pool, ORDERS, golden::events()).await.unwrap());
    let mark = |events: i32| {
        format!(
            "update control.version set golden_events = {events}, golden_digest = '{digest}' \
             where projection = 'orders'"
        )
    };
    run(&scenario, &mark(shorter)).await;
    scenario.scribe.write(&story(94, 10).0, 10).await;
    let projector = scenario.projector(settings()).await;
    scenario.settle().await;
    assert_eq!(version(&scenario, ORDERS, 1).await.stale, None);
    projector.stop().await;
    // A later program marked it. The part beyond this program's slice cannot be compared.
    run(&scenario, &mark(golden::events() + 1)).await;
    let reason = version(&scenario, ORDERS, 1).await.stale.unwrap();
    assert!(reason.contains("a later program"), "{reason}");
}
