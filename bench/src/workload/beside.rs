//! `beside`: queries and the lag of what serves, with orders arriving at half of what the node can take; first alone, then
//! beside rebuilds of all read models, one after another, or of some at the same time.

use super::{
    query::Known,
    reading::ReadSide,
    rebuild::{fill, names, rebuilds, until_serving},
    system::Writing,
};
use crate::{
    args::{Args, name},
    measure::{Load, Measured, closed_loop, cpu_time, latencies, record},
    observed::Appended,
    place::Place,
    report::Line,
    shop::Shop,
};
use anyhow::{Context, Result};
use events::Partition;
use hdrhistogram::Histogram;
use projections::{
    ReadModel, ReadModels,
    rebuild::{self, Manner},
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{task::JoinSet, time};
use tokio_util::sync::CancellationToken;

/// Events in the log at the beginning, about, unless told otherwise.
const EVENTS: u64 = 1_000_000;

/// How long the node's capacity is measured.
const CAPACITY: Duration = Duration::from_secs(5);

/// Orders are placed at these intervals, as many as the rate wants.
const BEAT: Duration = Duration::from_millis(10);

/// Clients that query, each with this rest between two queries.
const READERS: usize = 8;
const READER_RESTS: Duration = Duration::from_millis(20);

/// The rest between two looks at the lag.
const LOOK: Duration = Duration::from_millis(10);

/// Longer than any lag that can be told.
const PATIENCE: Duration = Duration::from_mins(1);

/// What is seen while something goes on.
#[derive(Clone)]
struct Seen(Arc<Mutex<(Histogram<u64>, Histogram<u64>)>>);

impl Seen {
    fn new() -> Result<Self> {
        Ok(Self(Arc::new(Mutex::new((latencies()?, latencies()?)))))
    }

    fn both(&self) -> MutexGuard<'_, (Histogram<u64>, Histogram<u64>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was seen since the last time, of queries and of lag.
    fn take(&self) -> Result<(Histogram<u64>, Histogram<u64>)> {
        let empty = (latencies()?, latencies()?);
        Ok(std::mem::replace(&mut *self.both(), empty))
    }
}

/// Measures queries and lag alone, and beside rebuilds.
///
/// # Errors
/// When anything fails, a query above all.
pub async fn run(args: &Args, place: &Place) -> Result<Vec<Line>> {
    let writing = Writing::start(place).await?;
    let shop = Arc::new(writing.shop(args, &place.environment).await?);
    let appended = || writing.appended().events;
    let orders = fill(&shop, args.events.unwrap_or(EVENTS), appended).await?;
    let side = ReadSide::start(place, writing.log()).await?;
    side.caught_up().await?;

    let ordering = Arc::clone(&shop);
    let placed = closed_loop(
        Load { clients: 64, warm_up: Duration::from_secs(1), measured: CAPACITY },
        async || Ok(writing.appended()),
        move |_| {
            let shop = Arc::clone(&ordering);
            async move { shop.order(&shop.two_products()).await.map(drop) }
        },
    )
    .await?;
    let half = placed.per_second() / 2.0;
    side.caught_up().await?;

    let (seen, ending, mut tasks) = (Seen::new()?, CancellationToken::new(), JoinSet::new());
    tasks.spawn(place_orders(Arc::clone(&shop), half, ending.clone()));
    let known = Arc::new(Known { shop: Arc::clone(&shop), orders });
    for _ in 0..READERS {
        let (reads, known) = (side.reads.clone(), Arc::clone(&known));
        tasks.spawn(query(reads, known, seen.clone(), ending.clone()));
    }
    tasks.spawn(lag(side.reads.clone(), place.partitions(), seen.clone(), ending.clone()));

    time::sleep(Duration::from_secs(2)).await;
    seen.take()?;
    let began = (Instant::now(), cpu_time());
    time::sleep(args.load().measured).await;
    let mut lines = lines(place, "alone", &seen, began)?;
    for models in rebuilds(&args.model) {
        seen.take()?;
        let began = (Instant::now(), cpu_time());
        let manner = Manner { gentle: args.throttle, verify_only: false };
        let versions = rebuild::request_all(side.reads.pool(), &models, manner).await?;
        for (model, version) in models.iter().zip(versions) {
            until_serving(&side, *model, version).await?;
        }
        lines.extend(self::lines(place, &format!("beside {}", names(&models)), &seen, began)?);
        for model in models {
            rebuild::drop_old(side.reads.pool(), model).await?;
        }
        if let Some(ended) = tasks.try_join_next() {
            ended.context("a client died")??;
        }
    }
    ending.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended.context("a client died")??;
    }
    lines.insert(0, line("order".to_owned(), "orders", name(place.kind()), placed));
    side.stop().await;
    writing.stop().await.close().await;
    Ok(lines)
}

fn lines(
    place: &Place,
    when: &str,
    seen: &Seen,
    (began, cpu): (Instant, Duration),
) -> Result<Vec<Line>> {
    let (took, cpu) = (began.elapsed(), cpu_time().saturating_sub(cpu));
    let (queries, lag) = seen.take()?;
    let of = |what: &str, unit, latency: Histogram<u64>, cpu| {
        let (operations, appended) = (latency.len(), Appended::default());
        let measured = Measured { operations, took, latency: Some(latency), appended, cpu };
        line(format!("{what} {when}"), unit, name(place.kind()), measured)
    };
    Ok(vec![of("queries", "queries", queries, cpu), of("lag", "looks", lag, Duration::ZERO)])
}

fn line(what: String, unit: &'static str, on: String, measured: Measured) -> Line {
    Line {
        what,
        on,
        over: "process".to_owned(),
        clients: None,
        unit,
        per_second: measured.per_second(),
        measured,
        floor: None,
    }
}

/// So many orders a second, whether or not the earlier ones are done.
async fn place_orders(shop: Arc<Shop>, rate: f64, ending: CancellationToken) -> Result<()> {
    let (mut beats, mut due, mut placing) = (time::interval(BEAT), 0.0, JoinSet::new());
    beats.set_missed_tick_behavior(time::MissedTickBehavior::Burst);
    while !ending.is_cancelled() {
        beats.tick().await;
        due += rate * BEAT.as_secs_f64();
        while due >= 1.0 {
            due -= 1.0;
            let shop = Arc::clone(&shop);
            placing.spawn(async move { shop.order(&shop.two_products()).await });
        }
        while let Some(placed) = placing.try_join_next() {
            placed.context("a client died")??;
        }
    }
    while let Some(placed) = placing.join_next().await {
        placed.context("a client died")??;
    }
    Ok(())
}

async fn query(
    reads: ReadModels,
    known: Arc<Known>,
    seen: Seen,
    ending: CancellationToken,
) -> Result<()> {
    while !ending.is_cancelled() {
        let began = Instant::now();
        known.ask(&reads).await?;
        record(&mut seen.both().0, began.elapsed());
        time::sleep(READER_RESTS).await;
    }
    Ok(())
}

/// How long it takes until what is acknowledged can be read.
async fn lag(
    reads: ReadModels,
    partitions: u32,
    seen: Seen,
    ending: CancellationToken,
) -> Result<()> {
    for nth in 0.. {
        if ending.is_cancelled() {
            break;
        }
        let model = ReadModel::ALL[nth as usize % ReadModel::ALL.len()];
        let began = Instant::now();
        reads.wait_for_end(model, Partition(nth % partitions), PATIENCE).await?;
        record(&mut seen.both().1, began.elapsed());
        time::sleep(LOOK).await;
    }
    Ok(())
}
