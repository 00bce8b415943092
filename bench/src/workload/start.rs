//! `start`: how long the program takes to start on a large log until it is ready.

use super::{
    reading::{caught_up, place_orders},
    system::Program,
};
use crate::{
    args::{Args, Over, name},
    measure::{Measured, cpu_time, latencies, record},
    observed::Appended,
    place::Place,
    report::Line,
};
use anyhow::{Context, Result};
use projections::database::local::LocalPostgres;
use std::{fs, sync::Arc, time::Instant};

/// Approximate number of events in the log, by default.
const EVENTS: u64 = 1_000_000;

/// Fills a log through the whole program, then starts the program on it twice: with the snapshots
/// of a graceful stop, and without snapshots. The database is running and up to date.
///
/// # Errors
/// When anything fails.
pub async fn run(args: &Args, place: &Place) -> Result<Vec<Line>> {
    let program = Program::start(place).await?;
    let shop = Arc::new(program.shop(args, &place.environment).await?);
    place_orders(&shop, args.events.unwrap_or(EVENTS), || program.appended().events).await?;
    let events = program.appended().events;
    let reads = program.running().app().reads.clone().context("the program answers no queries")?;
    caught_up(&reads, place.partitions()).await?;
    drop((shop, reads));
    let postgres = program.stop().await;

    let (with, postgres) = start(place, postgres, events, "start, with snapshots").await?;
    fs::remove_dir_all(place.folder().join("data/snapshots"))?;
    let (without, _) = start(place, postgres, events, "start, without snapshots").await?;
    Ok(vec![with, without])
}

async fn start(
    place: &Place,
    postgres: LocalPostgres,
    events: u64,
    what: &str,
) -> Result<(Line, LocalPostgres)> {
    let (began, cpu) = (Instant::now(), cpu_time());
    let program = Program::start_on(place, postgres).await?;
    let took = began.elapsed();
    let mut latency = latencies()?;
    record(&mut latency, took);
    let appended = Appended { batches: 0, events, body_bytes: 0 };
    let cpu = cpu_time().saturating_sub(cpu);
    let measured = Measured { operations: events, took, latency: Some(latency), appended, cpu };
    let line = Line::new(what, name(place.kind()), "events", measured);
    Ok((Line { over: name(Over::Http), ..line }, program.stop().await))
}
