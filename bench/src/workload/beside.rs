//! `beside`: queries, orders and the lag of the serving read models, while orders arrive at half
//! the highest rate of the node. They are measured first alone, then beside rebuilds: of every read
//! model, one after another, or of some at the same time.

use super::{
    query::Known,
    reading::ReadSide,
    rebuild::{fill, names, rebuilds, until_serving},
    samples::{Recorder, Samples, Window},
    system::Writing,
};
use crate::{
    args::{Args, name},
    measure::{Load, Measured, closed_loop, cpu_time},
    observed::Appended,
    place::Place,
    report::Line,
    shop::Shop,
};
use anyhow::{Context, Result, anyhow};
use commands::CommandError;
use events::Partition;
use hdrhistogram::Histogram;
use projections::{
    ReadModel, ReadModels,
    rebuild::{self, Manner},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{task::JoinSet, time};
use tokio_util::sync::CancellationToken;

/// Approximate number of events in the log at the beginning, by default.
const EVENTS: u64 = 1_000_000;

/// How long to measure the highest rate of orders.
const CAPACITY: Duration = Duration::from_secs(5);

/// The interval at which orders are placed, as many as the rate requires.
const TICK: Duration = Duration::from_millis(10);

/// Number of querying clients, and the pause of each between two queries.
const READERS: usize = 8;
const READER_PAUSE: Duration = Duration::from_millis(20);

/// The pause between two measurements of the lag.
const LAG_PAUSE: Duration = Duration::from_millis(10);

/// The longest lag that is waited for.
const PATIENCE: Duration = Duration::from_mins(1);

/// The time and the counters at the beginning of a measurement.
struct Began {
    at: Instant,
    cpu: Duration,
    sent_again: u64,
}

impl Began {
    fn now(shop: &Shop) -> Self {
        Self { at: Instant::now(), cpu: cpu_time(), sent_again: shop.sent_again() }
    }
}

/// Measures queries, orders and lag, alone and beside rebuilds.
///
/// # Errors
/// When anything fails, even a single query.
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

    let (samples, ending, mut tasks) = (Recorder::new()?, CancellationToken::new(), JoinSet::new());
    tasks.spawn(place_orders(Arc::clone(&shop), half, samples.clone(), ending.clone()));
    let known = Arc::new(Known { shop: Arc::clone(&shop), orders });
    for _ in 0..READERS {
        let (reads, known) = (side.reads.clone(), Arc::clone(&known));
        tasks.spawn(query(reads, known, samples.clone(), ending.clone()));
    }
    tasks.spawn(samples.clone().watch_the_host(ending.clone()));
    tasks.spawn(lag(side.reads.clone(), place.partitions(), samples.clone(), ending.clone()));

    let lines = tokio::select! {
        lines = measure_all(args, place, &shop, &side, &samples) => lines?,
        // No client ends before `ending` is cancelled, unless it fails.
        failed = ended(&mut tasks) => return Err(failed),
    };
    ending.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended.context("a client panicked")??;
    }
    let order = Line::new("order", name(place.kind()), "orders", placed);
    side.stop().await;
    writing.stop().await.close().await;
    Ok([vec![order], lines].concat())
}

async fn ended(clients: &mut JoinSet<Result<()>>) -> anyhow::Error {
    match clients.join_next().await {
        Some(Ok(Err(error))) => error,
        Some(Err(died)) => anyhow!(died).context("a client panicked"),
        Some(Ok(Ok(()))) | None => anyhow!("a client ended early"),
    }
}

/// Measures what clients see, without a rebuild and beside each rebuild.
async fn measure_all(
    args: &Args,
    place: &Place,
    shop: &Shop,
    side: &ReadSide,
    samples: &Recorder,
) -> Result<Vec<Line>> {
    time::sleep(Duration::from_secs(2)).await;
    samples.take()?;
    let began = Began::now(shop);
    samples.until_enough(args.load().measured).await;
    let mut lines = lines(place, shop, "alone", samples, &began)?;
    for models in rebuilds(&args.model) {
        samples.take()?;
        let began = Began::now(shop);
        let manner = Manner { gentle: args.throttle, verify_only: false };
        let versions = rebuild::request_all(side.reads.pool(), &models, manner).await?;
        for (model, version) in models.iter().zip(versions) {
            until_serving(side, *model, version).await?;
        }
        let when = format!("beside {}", names(&models));
        lines.extend(self::lines(place, shop, &when, samples, &began)?);
        for model in models {
            rebuild::drop_old(side.reads.pool(), model).await?;
        }
    }
    Ok(lines)
}

fn lines(
    place: &Place,
    shop: &Shop,
    when: &str,
    samples: &Recorder,
    began: &Began,
) -> Result<Vec<Line>> {
    let (took, cpu) = (began.at.elapsed(), cpu_time().saturating_sub(began.cpu));
    let again = shop.sent_again() - began.sent_again;
    let Window { all, undisturbed, in_doubt, .. } = samples.take()?;
    let of = |what: &str, when: &str, unit, latency: Histogram<u64>, took, cpu| {
        let (operations, appended) = (latency.len(), Appended::default());
        let measured = Measured { operations, took, latency: Some(latency), appended, cpu };
        Line::new(format!("{what} {when}"), name(place.kind()), unit, measured)
    };
    let lines = |when: &str, Samples { queries, orders, lag, .. }, took, cpu| {
        [
            of("queries", when, "queries", queries, took, cpu),
            of("orders", when, "orders", orders, took, Duration::ZERO),
            of("lag", when, "samples", lag, took, Duration::ZERO),
        ]
    };
    let (seconds, whole) = (undisturbed.seconds, all.seconds);
    let some = format!("{when}, in the {seconds} of {whole} s without steal");
    let mut when = when.to_owned();
    for (count, what) in [(again, "commands sent again"), (in_doubt, "orders in doubt")] {
        if count > 0 {
            when = format!("{when}, {count} {what}");
        }
    }
    let mut rows = lines(&when, all, took, cpu).to_vec();
    if (1..whole).contains(&seconds) {
        let took = Duration::from_secs(seconds.into());
        rows.extend(lines(&some, undisturbed, took, Duration::ZERO));
    }
    Ok(rows)
}

/// Places `rate` orders per second, without waiting for the earlier ones.
async fn place_orders(
    shop: Arc<Shop>,
    rate: f64,
    samples: Recorder,
    ending: CancellationToken,
) -> Result<()> {
    let (mut ticks, mut due, mut placing) =
        (time::interval(TICK), 0.0, JoinSet::<Result<()>>::new());
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Burst);
    while !ending.is_cancelled() {
        ticks.tick().await;
        due += rate * TICK.as_secs_f64();
        while due >= 1.0 {
            due -= 1.0;
            let (shop, samples) = (Arc::clone(&shop), samples.clone());
            placing.spawn(async move {
                let began = Instant::now();
                match shop.order(&shop.two_products()).await {
                    Ok(_) => samples.record(|samples| &mut samples.orders, began),
                    // The append failed with an unknown outcome; a real client would look later.
                    Err(error) if is_in_doubt(&error) => samples.count_in_doubt(),
                    Err(error) => return Err(error),
                }
                Ok(())
            });
        }
        while let Some(placed) = placing.try_join_next() {
            placed.context("a client panicked")??;
        }
    }
    while let Some(placed) = placing.join_next().await {
        placed.context("a client panicked")??;
    }
    Ok(())
}

fn is_in_doubt(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(CommandError::OutcomeUnknown))
}

async fn query(
    reads: ReadModels,
    known: Arc<Known>,
    samples: Recorder,
    ending: CancellationToken,
) -> Result<()> {
    while !ending.is_cancelled() {
        let began = Instant::now();
        known.ask(&reads).await?;
        samples.record(|samples| &mut samples.queries, began);
        time::sleep(READER_PAUSE).await;
    }
    Ok(())
}

/// Measures the lag: how long it takes until a read model shows everything acknowledged so far.
async fn lag(
    reads: ReadModels,
    partitions: u32,
    samples: Recorder,
    ending: CancellationToken,
) -> Result<()> {
    for nth in 0.. {
        if ending.is_cancelled() {
            break;
        }
        let model = ReadModel::ALL[nth as usize % ReadModel::ALL.len()];
        let began = Instant::now();
        reads.wait_for_end(model, Partition(nth % partitions), PATIENCE).await?;
        samples.record(|samples| &mut samples.lag, began);
        time::sleep(LAG_PAUSE).await;
    }
    Ok(())
}
