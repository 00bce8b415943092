//! `memory`: what the write side keeps in memory for each customer, order and idempotency key.
//!
//! Each kind has a made-up log with `--count` things of it. The write side opens the log, and the
//! growth of this process's memory meanwhile, divided by the count, is what one thing takes: its
//! state, its place in the tables, and the allocator's rounding. Nothing is stopped before the end,
//! so that no kind lives in the memory that another one has left.

mod kind;
mod made_up;

use super::system::Writing;
use crate::{
    args::{Args, LogKind},
    place::{OpenLog, Place},
    report::thousands,
    shop::currency,
};
use anyhow::{Context, Result, ensure};
use events::Environment;
use kind::Kind;
use made_up::MadeUpLog;
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;

/// The number of customers that are measured first and not reported: what the process needs once
/// must not count for the first kind.
const WARM_UP: u64 = 20_000;

/// How long the allocator gets to return memory.
const SETTLING: Duration = Duration::from_secs(1);

/// The most bytes of a customer who has nothing open.
const CUSTOMER: f64 = 300.0;

/// The most bytes by which a shipped order that owes nothing may differ from a delivered one: the
/// noise of a measurement.
const NOISE: f64 = 16.0;

/// Measures every kind and prints the table.
///
/// # Errors
/// When a partition does not open.
pub async fn run(args: &Args) -> Result<()> {
    let mut kept = Vec::new();
    measure(args, Kind::Customer, WARM_UP, &mut kept).await?;
    println!("| kind | count | bytes each | goal | met |");
    println!("|---|--:|--:|---|---|");
    let mut delivered = f64::INFINITY;
    for kind in Kind::ALL {
        let each = measure(args, kind, args.count, &mut kept).await?;
        let (goal, most) = match kind {
            Kind::Customer | Kind::Ordered | Kind::OrderedLongAgo => ("under 300", Some(CUSTOMER)),
            Kind::Shipped => ("that of a delivered one", Some(delivered + NOISE)),
            _ => ("", None),
        };
        let met = most.map_or("", |most| if each < most { "yes" } else { "no" });
        let count = thousands(args.count);
        println!("| {} | {count} | {each:.0} | {goal} | {met} |", kind.title());
        if kind == Kind::Delivered {
            delivered = each;
        }
    }
    for (place, writing) in kept {
        writing.stop().await.close().await;
        place.remove().await?;
    }
    Ok(())
}

/// The bytes that one thing of `count` takes. Keeps the write side that holds them.
async fn measure(
    args: &Args,
    kind: Kind,
    count: u64,
    kept: &mut Vec<(Place, Writing)>,
) -> Result<f64> {
    let place = Place::make(args, LogKind::Memory)?;
    let environment: Arc<dyn Environment> = Arc::clone(&place.environment);
    let log = MadeUpLog::new(kind, count, currency()?, place.partitions(), environment);
    let before = resident()?;
    let writing = Writing::start_on(&place, OpenLog::of(Arc::new(log))).await?;
    ensure!(writing.is_open(), "a partition with {} did not open", kind.title());
    ensure!(writing.owing() == 0, "{} owes something", kind.title());
    sleep(SETTLING).await;
    let after = resident()?;
    kept.push((place, writing));
    #[expect(clippy::cast_precision_loss, reason = "bytes and counts are far below 2^52")]
    Ok(after.saturating_sub(before) as f64 / count as f64)
}

/// The memory of this process that no file backs, in bytes.
fn resident() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    let kib: u64 = kib.context("the system does not report resident memory")?.parse()?;
    Ok(kib * 1024)
}
