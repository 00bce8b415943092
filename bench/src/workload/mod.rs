//! The workloads.

mod beside;
mod command;
mod memory;
mod project;
mod query;
mod reading;
mod rebuild;
mod samples;
mod search;
mod start;
mod system;

use crate::{
    args::{Args, LogKind, Over, Workload, name},
    floor::Rows,
    place::Place,
    report::{HEAD, Line},
};
use anyhow::{Result, bail};
use clap::CommandFactory;
use orderlog::{config::LogFormat, telemetry};
use std::time::Duration;

/// The longest measurement of a floor.
const FLOOR: Duration = Duration::from_secs(5);

fn floor_duration(args: &Args) -> Duration {
    FLOOR.min(args.load().measured)
}

/// Measures what the command line asks for, and prints each line of the table when it is ready.
///
/// # Errors
/// When anything fails.
pub async fn run(args: Args) -> Result<()> {
    let runs = match args.workload {
        None => {
            // Not an error: `cargo bench` of the whole workspace passes no workload.
            Args::command().print_help()?;
            return Ok(());
        }
        Some(Workload::All) => all(&args),
        Some(_) => vec![args.clone()],
    };
    telemetry::log_lines(&args.log_filter, LogFormat::Text, None);
    if args.workload == Some(Workload::Memory) {
        return memory::run(&args).await;
    }
    println!("{HEAD}");
    for args in runs {
        let what = args.workload.map(name).unwrap_or_default();
        eprintln!("load: {what}, log {}, over {}", name(args.log), name(args.over));
        for line in run_one(&args).await? {
            println!("{}", line.markdown());
        }
    }
    Ok(())
}

/// The runs of the table in `docs/performance.md`.
fn all(args: &Args) -> Vec<Args> {
    use Workload::{Append, Hot, HotOrder, Order, Project, Query, Rebuild, Search, Start};
    let embedded = [
        (Append, Over::Process, 64),
        (Hot, Over::Process, 64),
        (Order, Over::Process, 64),
        (HotOrder, Over::Process, 64),
        (Append, Over::Http, 64),
        (Order, Over::Http, 64),
        (Query, Over::Process, 64),
        (Query, Over::Http, 64),
        (Search, Over::Process, 2),
        (Project, Over::Process, 64),
        (Rebuild, Over::Process, 64),
        (Start, Over::Process, 64),
    ];
    let kafka = [
        (Append, Over::Process, 64),
        (Append, Over::Process, 1024),
        (Hot, Over::Process, 1024),
        (Order, Over::Process, 64),
        (Order, Over::Process, 1024),
        (Order, Over::Http, 64),
        (Project, Over::Process, 64),
        (Rebuild, Over::Process, 64),
    ];
    let kafka = if args.kafka.is_some() { kafka.as_slice() } else { &[] };
    let runs = embedded.iter().map(|run| (LogKind::Embedded, run));
    let runs = runs.chain(kafka.iter().map(|run| (LogKind::Kafka, run)));
    let run = |(log, &(workload, over, clients)): (LogKind, &(Workload, Over, u16))| Args {
        workload: Some(workload),
        log,
        over,
        clients,
        products: if workload == Search { 100_000 } else { args.products },
        ..args.clone()
    };
    runs.map(run).collect()
}

/// Does one run in its own place, which is removed even if the run fails or is interrupted.
async fn run_one(args: &Args) -> Result<Vec<Line>> {
    let place = Place::make(args, args.log)?;
    let run = async {
        match args.workload {
            Some(Workload::Query) => query::run(args, &place).await,
            Some(Workload::Held) => query::run_held(args, &place).await,
            Some(Workload::Search) => search::run(args, &place).await,
            Some(Workload::Project) => project::run(args, &place).await,
            Some(Workload::Rebuild) => rebuild::run(args, &place).await,
            Some(Workload::Beside) => beside::run(args, &place).await,
            Some(Workload::Start) => start::run(args, &place).await,
            Some(Workload::FloorCopy) => project::run_floor(args, &place).await,
            Some(Workload::FloorEmbedded | Workload::FloorKafka) => floors(args, &place).await,
            _ => command::run(args, &place).await,
        }
    };
    let lines = tokio::select! {
        lines = run => lines,
        _ = tokio::signal::ctrl_c() => bail_interrupted(),
    };
    let removed = place.remove().await;
    let lines = lines?;
    removed?;
    Ok(lines)
}

fn bail_interrupted() -> Result<Vec<Line>> {
    bail!("interrupted")
}

/// Measures the floor alone, with small and large batches by default.
async fn floors(args: &Args, place: &Place) -> Result<Vec<Line>> {
    let batches = args.batch.map_or(vec![64, 1024], |batch| vec![batch as usize]);
    let mut lines = Vec::new();
    for batch in batches {
        let rows = Rows { batch, body_bytes: Rows::PLAIN_BODY };
        lines.push(match args.workload {
            Some(Workload::FloorKafka) => command::kafka_floor(args, rows).await?,
            _ => command::embedded_floor(args, place, rows).await?,
        });
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        measure::{Measured, rate},
        observed::Appended,
    };
    use clap::Parser;

    #[test]
    fn the_whole_table_needs_no_kafka() {
        let args = Args::parse_from(["load", "all", "--seconds", "1"]);
        let logs = |args: Args| all(&args).into_iter().map(|run| run.log).collect::<Vec<_>>();
        let without = Args { kafka: None, ..args.clone() };
        assert!(logs(without).iter().all(|log| *log == LogKind::Embedded));
        let with = Args { kafka: Some("127.0.0.1:9092".to_owned()), ..args };
        assert!(logs(with).contains(&LogKind::Kafka));
    }

    async fn short_run(more: &[&str]) -> Line {
        let bounds =
            ["--seconds=1", "--warm-up=0", "--clients=8", "--products=10", "--customers=5"];
        let args = Args::parse_from([&["load"], more, &bounds].concat());
        run_one(&args).await.unwrap().swap_remove(0)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_command_is_one_event() {
        let Measured { operations, appended, .. } =
            short_run(&["append", "--log=memory"]).await.measured;
        // Not exactly one: the events are counted a moment before or after the clients' clocks
        // stop.
        let ratio = rate(appended.events, Duration::from_secs(operations));
        assert!((0.8..1.2).contains(&ratio), "{operations} commands, {appended:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn whole_orders_reach_the_log_on_disk_and_the_floor_is_measured() {
        let line = short_run(&["order", "--log=embedded"]).await;
        assert!(line.measured.operations > 0 && line.floor.is_some());
        // An order is answered after these events: placed, opened, reserved twice, priced, payment
        // started and captured, confirmed.
        let Appended { events, .. } = line.measured.appended;
        assert!(events >= 7 * line.measured.operations, "{events} events");
    }
}
