//! `project` and `rebuild`: a whole log into `PostgreSQL`, and raw `COPY` of its history below
//! them.

use super::reading::{Filled, ReadSide};
use crate::{
    args::{Args, Model, Workload, name},
    floor::copy::{self, History},
    measure::{Measured, cpu_time},
    observed::Appended,
    place::Place,
    report::Line,
};
use anyhow::{Context, Result, bail};
use events::log::EventLog;
use projections::{ReadModel, database::local::LocalPostgres, rebuild};
use std::time::{Duration, Instant};

/// Between two looks at a rebuild.
const LOOK: Duration = Duration::from_millis(20);

/// No rebuild takes longer.
const PATIENCE: Duration = Duration::from_mins(30);

/// Measures the projector from an empty database on, or rebuilds beside what it has made; then
/// `COPY`.
///
/// # Errors
/// When anything fails.
pub async fn run(args: &Args, place: &Place) -> Result<Vec<Line>> {
    let filled = Filled::make(args, place, args.events).await?;
    let log = filled.log.log.clone();
    let history = History::read(&*log).await?;
    let side = ReadSide::start(place, &log).await?;
    let (began, cpu) = (Instant::now(), cpu_time());
    side.caught_up().await?;
    let projected = done(history.rows(), began, cpu);
    let mut lines = Vec::new();
    if args.workload == Some(Workload::Rebuild) {
        for model in models(args.model) {
            let rebuilt = rebuild(&side, &*log, model, history.rows()).await?;
            lines.push(line(format!("rebuild {model}"), place, rebuilt));
        }
    } else {
        lines.push(line("project".to_owned(), place, projected));
    }
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

/// Only the floor: the rows of a log like that.
///
/// # Errors
/// When anything fails.
pub async fn run_floor(args: &Args, place: &Place) -> Result<Vec<Line>> {
    let filled = Filled::make(args, place, args.events).await?;
    let history = History::read(&*filled.log.log).await?;
    let floors = floors(&place.postgres().await?, &history).await?;
    filled.log.close().await;
    Ok(floors)
}

async fn floors(postgres: &LocalPostgres, history: &History) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (indexed, table) in [(false, "history, no index"), (true, "history, its index")] {
        let measured = copy::run(&postgres.connect_options(), history, indexed).await?;
        lines.push(Line {
            what: "floor-copy".to_owned(),
            on: table.to_owned(),
            over: "-".to_owned(),
            clients: None,
            unit: "rows",
            per_second: measured.events_per_second(),
            measured,
            floor: None,
        });
    }
    Ok(lines)
}

fn line(what: String, place: &Place, measured: Measured) -> Line {
    Line {
        what,
        on: name(place.kind()),
        over: "process".to_owned(),
        clients: None,
        unit: "events",
        per_second: measured.per_second(),
        measured,
        floor: None,
    }
}

/// A run over the whole log; single events are not timed.
fn done(events: u64, began: Instant, cpu: Duration) -> Measured {
    Measured {
        operations: events,
        took: began.elapsed(),
        latency: None,
        appended: Appended { batches: 0, events, body_bytes: 0 },
        cpu: cpu_time().saturating_sub(cpu),
    }
}

fn models(model: Option<Model>) -> Vec<ReadModel> {
    match model {
        None => ReadModel::ALL.to_vec(),
        Some(Model::Orders) => vec![ReadModel::Orders],
        Some(Model::Products) => vec![ReadModel::Products],
        Some(Model::Customers) => vec![ReadModel::Customers],
        Some(Model::History) => vec![ReadModel::History],
    }
}

/// From the request until the new version serves.
async fn rebuild(
    side: &ReadSide,
    log: &dyn EventLog,
    model: ReadModel,
    events: u64,
) -> Result<Measured> {
    let (began, cpu) = (Instant::now(), cpu_time());
    let pool = side.reads.pool();
    let version = rebuild::request(pool, model).await?;
    loop {
        let status = rebuild::status(pool, log).await?;
        let built = status
            .iter()
            .find(|status| status.model == model && status.version == version)
            .with_context(|| format!("the rebuild of {model} is gone"))?;
        if built.serving {
            return Ok(done(events, began, cpu));
        }
        if began.elapsed() > PATIENCE {
            bail!("the rebuild of {model} has {} events after {PATIENCE:?}", built.events);
        }
        tokio::time::sleep(LOOK).await;
    }
}
