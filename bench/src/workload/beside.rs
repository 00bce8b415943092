//! `beside`: queries, orders and the lag of what serves, with orders arriving at half of what the node can take; first alone,
//! then beside rebuilds of all read models, one after another, or of some at the same time.

use super::{
    query::Known,
    reading::ReadSide,
    rebuild::{fill, names, rebuilds, until_serving},
    seen::{Kept, Seen, Sight},
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

/// When something began, and what had been done by then.
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
    tasks.spawn(place_orders(Arc::clone(&shop), half, seen.clone(), ending.clone()));
    let known = Arc::new(Known { shop: Arc::clone(&shop), orders });
    for _ in 0..READERS {
        let (reads, known) = (side.reads.clone(), Arc::clone(&known));
        tasks.spawn(query(reads, known, seen.clone(), ending.clone()));
    }
    tasks.spawn(seen.clone().watch_the_host(ending.clone()));
    tasks.spawn(lag(side.reads.clone(), place.partitions(), seen.clone(), ending.clone()));

    let lines = tokio::select! {
        lines = look(args, place, &shop, &side, &seen) => lines?,
        // None ends before it is told to.
        failed = ended(&mut tasks) => return Err(failed),
    };
    ending.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended.context("a client died")??;
    }
    let order = line("order".to_owned(), "orders", name(place.kind()), placed);
    side.stop().await;
    writing.stop().await.close().await;
    Ok([vec![order], lines].concat())
}

async fn ended(clients: &mut JoinSet<Result<()>>) -> anyhow::Error {
    match clients.join_next().await {
        Some(Ok(Err(error))) => error,
        Some(Err(died)) => anyhow!(died).context("a client died"),
        Some(Ok(Ok(()))) | None => anyhow!("a client ended early"),
    }
}

/// Looks at what clients see, without a rebuild and beside each.
async fn look(
    args: &Args,
    place: &Place,
    shop: &Shop,
    side: &ReadSide,
    seen: &Seen,
) -> Result<Vec<Line>> {
    time::sleep(Duration::from_secs(2)).await;
    seen.take()?;
    let began = Began::now(shop);
    seen.for_a_while(args.load().measured).await;
    let mut lines = lines(place, shop, "alone", seen, &began)?;
    for models in rebuilds(&args.model) {
        seen.take()?;
        let began = Began::now(shop);
        let manner = Manner { gentle: args.throttle, verify_only: false };
        let versions = rebuild::request_all(side.reads.pool(), &models, manner).await?;
        for (model, version) in models.iter().zip(versions) {
            until_serving(side, *model, version).await?;
        }
        let when = format!("beside {}", names(&models));
        lines.extend(self::lines(place, shop, &when, seen, &began)?);
        for model in models {
            rebuild::drop_old(side.reads.pool(), model).await?;
        }
    }
    Ok(lines)
}

fn lines(place: &Place, shop: &Shop, when: &str, seen: &Seen, began: &Began) -> Result<Vec<Line>> {
    let (took, cpu) = (began.at.elapsed(), cpu_time().saturating_sub(began.cpu));
    let again = shop.sent_again() - began.sent_again;
    let Kept { all, undisturbed, in_doubt, .. } = seen.take()?;
    let of = |what: &str, when: &str, unit, latency: Histogram<u64>, took, cpu| {
        let (operations, appended) = (latency.len(), Appended::default());
        let measured = Measured { operations, took, latency: Some(latency), appended, cpu };
        line(format!("{what} {when}"), unit, name(place.kind()), measured)
    };
    let lines = |when: &str, Sight { queries, orders, lag, .. }, took, cpu| {
        [
            of("queries", when, "queries", queries, took, cpu),
            of("orders", when, "orders", orders, took, Duration::ZERO),
            of("lag", when, "looks", lag, took, Duration::ZERO),
        ]
    };
    let (seconds, whole) = (undisturbed.seconds, all.seconds);
    let some = format!("{when}, in {seconds} of {whole} s with the cores for itself");
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
async fn place_orders(
    shop: Arc<Shop>,
    rate: f64,
    seen: Seen,
    ending: CancellationToken,
) -> Result<()> {
    let (mut beats, mut due, mut placing) =
        (time::interval(BEAT), 0.0, JoinSet::<Result<()>>::new());
    beats.set_missed_tick_behavior(time::MissedTickBehavior::Burst);
    while !ending.is_cancelled() {
        beats.tick().await;
        due += rate * BEAT.as_secs_f64();
        while due >= 1.0 {
            due -= 1.0;
            let (shop, seen) = (Arc::clone(&shop), seen.clone());
            placing.spawn(async move {
                let began = Instant::now();
                match shop.order(&shop.two_products()).await {
                    Ok(_) => seen.see(|sight| &mut sight.orders, began),
                    // Of an append that failed: nobody can tell, and who orders looks later.
                    Err(error) if is_in_doubt(&error) => seen.doubt(),
                    Err(error) => return Err(error),
                }
                Ok(())
            });
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

fn is_in_doubt(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(CommandError::OutcomeUnknown))
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
        seen.see(|sight| &mut sight.queries, began);
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
        seen.see(|sight| &mut sight.lag, began);
        time::sleep(LOOK).await;
    }
    Ok(())
}
