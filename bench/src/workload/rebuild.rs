//! `rebuild`: read models built anew beside the serving ones, each with the floor below it.

use super::{
    reading::{FILLING, ReadSide},
    system::Writing,
};
use crate::{
    args::{Args, Model, name},
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

/// Between two looks at a rebuild.
const LOOK: Duration = Duration::from_millis(20);

/// No rebuild takes longer.
const PATIENCE: Duration = Duration::from_mins(30);

/// Events in the log, about, unless told otherwise.
const EVENTS: u64 = 1_000_000;

/// Measures each rebuild, from the request until the new versions serve.
///
/// # Errors
/// When anything fails.
pub async fn run(args: &Args, place: &Place) -> Result<Vec<Line>> {
    let log = demo_log(args, place, args.events.unwrap_or(EVENTS)).await?;
    let side = ReadSide::start(place, &log.log).await?;
    side.caught_up().await?;
    side.settle().await?;
    let mut lines = Vec::new();
    for models in rebuilds(&args.model) {
        let rebuilt = rebuild(&side, &models).await?;
        lines.push(line(format!("rebuild {}", names(&models)), name(place.kind()), rebuilt));
    }
    let postgres = side.stop().await;
    if !args.no_floor {
        let file = File::write(&*log.log, &place.folder().join("events")).await?;
        for (nth, models) in rebuilds(&args.model).into_iter().enumerate() {
            let Some(below) = floor_of(&models) else { continue };
            let measured = floor::run(&postgres.connect_options(), &file, &below).await?;
            lines[nth].floor = Some(measured.events_per_second());
            lines.push(line(format!("floor of {}", names(&models)), "file".to_owned(), measured));
        }
    }
    log.close().await;
    Ok(lines)
}

fn line(what: String, on: String, measured: Measured) -> Line {
    Line {
        what,
        on,
        over: "process".to_owned(),
        clients: None,
        unit: "events",
        per_second: measured.per_second(),
        measured,
        floor: None,
    }
}

/// What is built anew, one after another: the models that are named at the same time, or else each alone.
pub fn rebuilds(named: &[Model]) -> Vec<Vec<ReadModel>> {
    if named.is_empty() {
        return ReadModel::ALL.into_iter().map(|model| vec![model]).collect();
    }
    let model = |named: &Model| match named {
        Model::Orders => ReadModel::Orders,
        Model::Products => ReadModel::Products,
        Model::Customers => ReadModel::Customers,
        Model::History => ReadModel::History,
        Model::Wishlists => ReadModel::Wishlists,
        Model::Search => ReadModel::Search,
        Model::Sales => ReadModel::Sales,
    };
    vec![named.iter().map(model).collect()]
}

/// As in `orders and products`.
pub fn names(models: &[ReadModel]) -> String {
    models.iter().map(|model| model.as_str()).collect::<Vec<_>>().join(" and ")
}

/// The floors of read models, if all of them have one.
fn floor_of(models: &[ReadModel]) -> Option<Vec<floor::Model>> {
    let floor = |model: &ReadModel| match model {
        ReadModel::Orders => Some(floor::Model::Orders),
        ReadModel::Products => Some(floor::Model::Products),
        ReadModel::History => Some(floor::Model::History),
        _ => None,
    };
    let mut floors = models.iter().map(floor).collect::<Option<Vec<_>>>()?;
    // The history gives every event back, so it takes them first.
    floors.sort_unstable();
    Some(floors)
}

/// A log with about so many events of orders like those of `orderlog demo`; nobody appends to it any more.
async fn demo_log(args: &Args, place: &Place, events: u64) -> Result<OpenLog> {
    let writing = Writing::start(place).await?;
    let shop = Arc::new(writing.shop(args, &place.environment).await?);
    fill(&shop, events, || writing.appended().events).await?;
    Ok(writing.stop().await)
}

/// Places orders like those of `orderlog demo` until about so many events are in the log; their ids.
///
/// # Errors
/// When an order is not decided.
pub async fn fill(shop: &Arc<Shop>, events: u64, appended: impl Fn() -> u64) -> Result<Vec<Uuid>> {
    let (mut next, mut orders, mut placing) = (0, Vec::new(), JoinSet::new());
    let mut spawn = |placing: &mut JoinSet<Result<Uuid>>| {
        let (shop, number) = (Arc::clone(shop), next);
        next += 1;
        placing.spawn(async move { shop.demo_order(number).await });
    };
    (0..FILLING).for_each(|_| spawn(&mut placing));
    while let Some(placed) = placing.join_next().await {
        orders.push(placed.context("a client died")??);
        if appended() < events {
            spawn(&mut placing);
        }
    }
    Ok(orders)
}

/// Waits until a version serves.
///
/// # Errors
/// When it is gone, or takes too long.
pub async fn until_serving(side: &ReadSide, model: ReadModel, version: u32) -> Result<()> {
    let (began, version) = (Instant::now(), i32::try_from(version)?);
    let serving = "select serving from control.version where projection = $1 and version = $2";
    loop {
        let serves: Option<bool> = sqlx::query_scalar(serving)
            .bind(model.as_str())
            .bind(version)
            .fetch_optional(side.reads.pool())
            .await?;
        if serves.with_context(|| format!("the rebuild of {model} is gone"))? {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "the rebuild of {model} takes over {PATIENCE:?}");
        tokio::time::sleep(LOOK).await;
    }
}

/// From the request until all new versions serve; the old ones are dropped afterwards.
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
