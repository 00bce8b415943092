//! `rebuild`: rebuilds of read models beside the serving ones, each with its floor.

use super::{
    reading::{FILLING, ReadSide},
    system::Writing,
};
use crate::{
    args::{Args, name},
    floor::rebuild::{self as floor, File},
    measure::{Measured, cpu_time},
    observed::Appended,
    place::{OpenLog, Place},
    report::Line,
    shop::Shop,
};
use anyhow::{Context, Result, ensure};
use projections::{
    ReadModel,
    rebuild::{self, Manner},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use uuid::Uuid;

/// Time between two checks whether a rebuild is done.
const LOOK: Duration = Duration::from_millis(20);

/// The longest time to wait for a rebuild.
const PATIENCE: Duration = Duration::from_mins(30);

/// Approximate number of events in the log, by default.
const EVENTS: u64 = 1_000_000;

/// Measures each rebuild from the request until the new versions serve.
///
/// # Errors
/// When anything fails.
pub async fn run(args: &Args, place: &Place) -> Result<Vec<Line>> {
    let log = demo_log(args, place, args.events.unwrap_or(EVENTS)).await?;
    let side = ReadSide::start(place, &log.log).await?;
    side.caught_up().await?;
    side.vacuum().await?;
    let mut lines = Vec::new();
    for models in rebuilds(&args.model) {
        let rebuilt = rebuild(&side, &models).await?;
        let what = format!("rebuild {}", names(&models));
        lines.push(Line::new(what, name(place.kind()), "events", rebuilt));
    }
    let postgres = side.stop().await;
    if !args.no_floor {
        let file = File::write(&*log.log, &place.folder().join("events")).await?;
        for (nth, models) in rebuilds(&args.model).into_iter().enumerate() {
            let Some(below) = floor_of(&models) else { continue };
            let measured = floor::run(&postgres.connect_options(), &file, &below).await?;
            lines[nth].floor = Some(measured.events_per_second());
            let what = format!("floor of {}", names(&models));
            lines.push(Line::new(what, "file", "events", measured));
        }
    }
    log.close().await;
    Ok(lines)
}

/// The rebuilds to do, one after another: one rebuild of all `named` models at the same time or, if
/// none is named, one rebuild of each model.
pub fn rebuilds(named: &[ReadModel]) -> Vec<Vec<ReadModel>> {
    if named.is_empty() {
        return ReadModel::ALL.map(|model| vec![model]).into();
    }
    vec![named.to_vec()]
}

/// The names of the models, such as `orders and products`.
pub fn names(models: &[ReadModel]) -> String {
    models.iter().map(|model| model.as_str()).collect::<Vec<_>>().join(" and ")
}

/// The floors of the read models, if all of them have one.
fn floor_of(models: &[ReadModel]) -> Option<Vec<floor::Model>> {
    let floor = |model: &ReadModel| match model {
        ReadModel::Orders => Some(floor::Model::Orders),
        ReadModel::Products => Some(floor::Model::Products),
        ReadModel::History => Some(floor::Model::History),
        _ => None,
    };
    let mut floors = models.iter().map(floor).collect::<Option<Vec<_>>>()?;
    // The history comes first, because it returns every event for the other folds.
    floors.sort_unstable();
    Some(floors)
}

/// Fills a log with about `events` events of orders like those of `orderlog demo`, and stops its
/// write side.
async fn demo_log(args: &Args, place: &Place, events: u64) -> Result<OpenLog> {
    let writing = Writing::start(place).await?;
    let shop = Arc::new(writing.shop(args, &place.environment).await?);
    fill(&shop, events, || writing.appended().events).await?;
    Ok(writing.stop().await)
}

/// Places orders like those of `orderlog demo` until the log has about `events` events. Returns
/// their ids.
///
/// # Errors
/// When an order stays pending.
pub async fn fill(shop: &Arc<Shop>, events: u64, appended: impl Fn() -> u64) -> Result<Vec<Uuid>> {
    let (mut next, mut orders, mut placing) = (0, Vec::new(), JoinSet::new());
    let mut spawn = |placing: &mut JoinSet<Result<Uuid>>| {
        let (shop, number) = (Arc::clone(shop), next);
        next += 1;
        placing.spawn(async move { shop.demo_order(number).await });
    };
    (0..FILLING).for_each(|_| spawn(&mut placing));
    while let Some(placed) = placing.join_next().await {
        orders.push(placed.context("a client panicked")??);
        if appended() < events {
            spawn(&mut placing);
        }
    }
    Ok(orders)
}

/// Waits until a version serves.
///
/// # Errors
/// When the version no longer exists, or the rebuild takes too long.
pub async fn until_serving(side: &ReadSide, model: ReadModel, version: u32) -> Result<()> {
    let (began, version) = (Instant::now(), i32::try_from(version)?);
    let serving = "select serving from control.version where projection = $1 and version = $2";
    loop {
        let serves: Option<bool> = sqlx::query_scalar(serving)
            .bind(model.as_str())
            .bind(version)
            .fetch_optional(side.reads.pool())
            .await?;
        if serves.with_context(|| format!("the new version of {model} no longer exists"))? {
            return Ok(());
        }
        ensure!(
            began.elapsed() < PATIENCE,
            "the rebuild of {model} takes longer than {PATIENCE:?}"
        );
        tokio::time::sleep(LOOK).await;
    }
}

/// Measures one rebuild, from the request until all new versions serve; then drops the old
/// versions.
async fn rebuild(side: &ReadSide, models: &[ReadModel]) -> Result<Measured> {
    let pool = side.reads.pool();
    let (began, cpu) = (Instant::now(), cpu_time());
    let versions = rebuild::request_all(pool, models, Manner::default()).await?;
    let versions: Vec<_> = models.iter().copied().zip(versions).collect();
    for &(model, version) in &versions {
        until_serving(side, model, version).await?;
    }
    let (took, cpu) = (began.elapsed(), cpu_time().saturating_sub(cpu));
    let mut events = 0;
    for (model, version) in versions {
        let applied: i64 = sqlx::query_scalar(
            "select sum(events)::bigint from control.checkpoint where projection = $1 and version = $2",
        )
        .bind(model.as_str())
        .bind(i32::try_from(version)?)
        .fetch_one(pool)
        .await?;
        rebuild::drop_old(pool, model).await?;
        events = applied.unsigned_abs();
    }
    let appended = Appended { batches: 0, events, body_bytes: 0 };
    Ok(Measured { operations: events, took, latency: None, appended, cpu })
}
