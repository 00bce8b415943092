//! `project`: projection of a whole log into `PostgreSQL`, with raw `COPY` of its history as the
//! floor.

use super::reading::{Filled, ReadSide};
use crate::{
    args::{Args, name},
    floor::copy::{self, History},
    measure::{Measured, cpu_time},
    observed::Appended,
    place::Place,
    report::Line,
};
use anyhow::Result;
use projections::database::local::LocalPostgres;
use std::time::{Duration, Instant};

/// Approximate number of events in the log, by default.
const EVENTS: u64 = 200_000;

/// Measures the projector on an empty database, then `COPY`.
///
/// # Errors
/// When anything fails.
pub async fn run(args: &Args, place: &Place) -> Result<Vec<Line>> {
    let filled = Filled::make(args, place, args.events.unwrap_or(EVENTS)).await?;
    let log = filled.log.log.clone();
    let history = History::read(&*log).await?;
    let side = ReadSide::start(place, &log).await?;
    let (began, cpu) = (Instant::now(), cpu_time());
    side.caught_up().await?;
    let projected = done(history.rows(), began, cpu);
    let mut lines = vec![Line::new("project", name(place.kind()), "events", projected)];
    let postgres = side.stop().await;
    if !args.no_floor {
        let floors = floors(&postgres, &history).await?;
        let plain = floors.first().map(|floor| floor.per_second);
        for line in &mut lines {
            line.floor = plain;
        }
        lines.extend(floors);
    }
    filled.log.close().await;
    Ok(lines)
}

/// Measures only the floor, with the rows of the same log.
///
/// # Errors
/// When anything fails.
pub async fn run_floor(args: &Args, place: &Place) -> Result<Vec<Line>> {
    let filled = Filled::make(args, place, args.events.unwrap_or(EVENTS)).await?;
    let history = History::read(&*filled.log.log).await?;
    let floors = floors(&place.postgres().await?, &history).await?;
    filled.log.close().await;
    Ok(floors)
}

async fn floors(postgres: &LocalPostgres, history: &History) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (indexed, table) in [(false, "history, no index"), (true, "history, with its index")] {
        let measured = copy::run(&postgres.connect_options(), history, indexed).await?;
        lines.push(Line::raw("floor-copy", table, measured));
    }
    Ok(lines)
}

/// The measurement of a run over the whole log; single events are not timed.
fn done(events: u64, began: Instant, cpu: Duration) -> Measured {
    Measured {
        operations: events,
        took: began.elapsed(),
        latency: None,
        appended: Appended { batches: 0, events, body_bytes: 0 },
        cpu: cpu_time().saturating_sub(cpu),
    }
}
