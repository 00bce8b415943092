//! What is measured.

mod beside;
mod command;
mod project;
mod query;
mod reading;
mod rebuild;
mod search;
mod seen;
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

/// Floors are measured no longer.
const FLOOR: Duration = Duration::from_secs(5);

fn floor_duration(args: &Args) -> Duration {
    FLOOR.min(args.load().measured)
}

/// Measures what the command line asks for and prints the table, line by line as it comes.
///
/// # Errors
/// When anything fails.
pub async fn run(args: Args) -> Result<()> {
    let runs = match args.workload {
        None => {
            // Not an error: `cargo bench` of the whole workspace comes here.
            Args::command().print_help()?;
            return Ok(());
        }
        Some(Workload::All) => all(&args),
        Some(_) => vec![args.clone()],
    };
    telemetry::log_lines(&args.log_filter, LogFormat::Text, None);
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

/// The runs of the README's table.
fn all(args: &Args) -> Vec<Args> {
    use Workload::{Append, Hot, HotOrder, Order, Project, Query, Rebuild, Search, Start};
    let run = |workload, log, over, clients| Args {
        workload: Some(workload),
        log,
        over,
        clients,
        ..args.clone()
    };
    let (embedded, kafka) = (LogKind::Embedded, LogKind::Kafka);
    let mut runs = vec![
        run(Append, embedded, Over::Process, 64),
        run(Hot, embedded, Over::Process, 64),
        run(Order, embedded, Over::Process, 64),
        run(HotOrder, embedded, Over::Process, 64),
        run(Append, embedded, Over::Http, 64),
        run(Order, embedded, Over::Http, 64),
        run(Query, embedded, Over::Process, 64),
        run(Query, embedded, Over::Http, 64),
        Args { products: 100_000, ..run(Search, embedded, Over::Process, 2) },
        run(Project, embedded, Over::Process, 64),
        run(Rebuild, embedded, Over::Process, 64),
        run(Start, embedded, Over::Process, 64),
    ];
    if args.kafka.is_some() {
        runs.extend([
            run(Append, kafka, Over::Process, 64),
            run(Append, kafka, Over::Process, 1024),
            run(Hot, kafka, Over::Process, 1024),
            run(Order, kafka, Over::Process, 64),
            run(Order, kafka, Over::Process, 1024),
            run(Order, kafka, Over::Http, 64),
            run(Project, kafka, Over::Process, 64),
            run(Rebuild, kafka, Over::Process, 64),
        ]);
    }
    runs
}

/// One run in a place of its own, which is cleared also when it fails or is interrupted.
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

/// The floor alone, in small and large batches unless told.
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
        // Not to the event: the log is looked at a moment before or after the clients' clocks.
        let ratio = rate(appended.events, Duration::from_secs(operations));
        assert!((0.8..1.2).contains(&ratio), "{operations} commands, {appended:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn whole_orders_reach_the_log_on_disk_and_the_floor_is_measured_below() {
        let line = short_run(&["order", "--log=embedded"]).await;
        assert!(line.measured.operations > 0 && line.floor.is_some());
        // Placed, opened, reserved twice, priced, payment started and captured, confirmed: and then
        // it is answered.
        let Appended { events, .. } = line.measured.appended;
        assert!(events >= 7 * line.measured.operations, "{events} events");
    }
}
