//! Programs with different revisions on the same read models: a newer program rebuilds them, an
//! older one leaves them alone.

use crate::{
    scenario::{Scenario, eventually, settings},
    shop::story,
};
use projections::{
    ProjectorSettings, ReadModel, golden,
    rebuild::{self, State, VersionStatus},
};
use sqlx::AssertSqlSafe;

const PRODUCTS: ReadModel = ReadModel::Products;

/// A fingerprint of the revision that this program's products have, and of other tables.
fn other_tables() -> String {
    let ours = golden::fingerprint(PRODUCTS);
    format!("{}-0123456789abcdef", ours.split_once('-').unwrap().0)
}

async fn versions(scenario: &Scenario, model: ReadModel) -> Vec<VersionStatus> {
    let status = rebuild::status(&scenario.pool, &*scenario.log).await.unwrap();
    status.into_iter().filter(|it| it.model == model).collect()
}

async fn run(scenario: &Scenario, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&scenario.pool).await.unwrap();
}

/// Writes some history, and marks the versions of a read model as written by other code.
async fn written_by(scenario: &mut Scenario, model: ReadModel, fingerprint: &str) -> uuid::Uuid {
    let (story, cast) = story(95, 30);
    scenario.scribe.write(&story, 10).await;
    let projector = scenario.projector(settings()).await;
    scenario.settle().await;
    projector.stop().await;
    let sql = "update control.version set fingerprint = '{}' where projection = '{}'";
    run(scenario, &sql.replacen("{}", fingerprint, 1).replacen("{}", model.as_str(), 1)).await;
    cast.products[0]
}

/// The tables of products before they could be discontinued.
const NO_SUCH_COLUMN: &str = "drop view read.products; \
    alter table products_v1.products drop column discontinued cascade; \
    create view read.products as \
    select product_id, shown_version, name, description, category, price, currency, on_hand, \
    reserved, shipped, created_at, updated_at from products_v1.products where listed";

#[tokio::test(flavor = "multi_thread")]
async fn a_version_of_an_older_program_is_rebuilt_at_the_start() {
    let mut scenario = Scenario::new(2).await;
    let product = written_by(&mut scenario, PRODUCTS, "1-0123456789abcdef").await;
    run(&scenario, NO_SUCH_COLUMN).await;
    let missing = scenario.models().product(product).await.unwrap_err();
    assert!(missing.is_of_shape(), "{missing}");

    // It is not rebuilt if the setting forbids it.
    let not_wanted = ProjectorSettings { rebuild_on_upgrade: false, ..settings() };
    let projector = scenario.projector(not_wanted).await;
    let orders = ReadModel::Orders;
    eventually("it runs", async || versions(&scenario, orders).await[0].lag_events == 0).await;
    projector.stop().await;
    let [stale] = &versions(&scenario, PRODUCTS).await[..] else { panic!("something was begun") };
    assert_eq!((stale.state, stale.serving), (State::Stale, true));
    let reason = stale.stale.clone().unwrap();
    assert!(reason.contains("an older program built it (revision 1"), "{reason}");
    let told = scenario.models().stale().await.unwrap();
    assert_eq!((told[0].model, told[0].rebuilding), (PRODUCTS, false));

    let projector = scenario.projector(settings()).await;
    eventually("the new version serves", async || {
        let versions = versions(&scenario, PRODUCTS).await;
        versions.iter().any(|it| it.version == 2 && it.serving)
    })
    .await;
    assert!(scenario.models().product(product).await.unwrap().is_some());
    assert!(scenario.models().stale().await.unwrap().is_empty());
    projector.stop().await;
    // It is rebuilt only once.
    scenario.projector(settings()).await.stop().await;
    assert_eq!(versions(&scenario, PRODUCTS).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_program_never_builds_down() {
    let mut scenario = Scenario::new(2).await;
    let product = written_by(&mut scenario, PRODUCTS, "99-0123456789abcdef").await;
    // Remove the notes of this program, so that only the revision decides.
    run(&scenario, "delete from control.code").await;
    // The newer program was also rebuilding orders.
    rebuild::request(&scenario.pool, ReadModel::Orders).await.unwrap();
    run(
        &scenario,
        "update control.version set fingerprint = '99-fedcba9876543210' where projection = 'orders'",
    )
    .await;
    let projector = scenario.projector(settings()).await;
    let customers = ReadModel::Customers;
    eventually("it runs", async || versions(&scenario, customers).await[0].lag_events == 0).await;
    projector.stop().await;
    let [left] = &versions(&scenario, PRODUCTS).await[..] else { panic!("it was built down") };
    let reason = left.stale.clone().unwrap();
    assert!(reason.contains("a newer program built it (revision 99"), "{reason}");
    assert_eq!(versions(&scenario, ReadModel::Orders).await.len(), 2);
    assert!(scenario.models().product(product).await.unwrap().is_some(), "it can be read");
}

/// Two programs have the same revision but different tables, as during development. The program
/// that was here first counts as the older one.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_with_the_same_revision_the_one_that_is_new_here_builds() {
    let mut scenario = Scenario::new(2).await;
    written_by(&mut scenario, PRODUCTS, &other_tables()).await;
    scenario.projector(settings()).await.stop().await;
    let [left] = &versions(&scenario, PRODUCTS).await[..] else { panic!("it was built back") };
    assert!(left.stale.clone().unwrap().contains("other tables"));
    run(&scenario, "delete from control.code where projection = 'products'").await;
    let projector = scenario.projector(settings()).await;
    eventually("the new version serves", async || {
        let versions = versions(&scenario, PRODUCTS).await;
        versions.iter().any(|it| it.version == 2 && it.serving)
    })
    .await;
    projector.stop().await;
}

/// Only one version is built at a time, and a version being built by other code is never continued.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_an_older_program_was_building_is_replaced() {
    let mut scenario = Scenario::new(2).await;
    written_by(&mut scenario, PRODUCTS, &other_tables()).await;
    rebuild::request(&scenario.pool, PRODUCTS).await.unwrap();
    run(
        &scenario,
        "update control.version set fingerprint = '1-0123456789abcdef' where projection = 'products'",
    )
    .await;
    let projector = scenario.projector(settings()).await;
    eventually("a version of this program serves", async || {
        let versions = versions(&scenario, PRODUCTS).await;
        versions.iter().any(|it| it.version == 2 && it.serving && it.stale.is_none())
    })
    .await;
    projector.stop().await;
}
