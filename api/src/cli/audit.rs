//! `orderlog audit`.

use super::{
    access::{self, ReadSide},
    exit,
};
use events::log::{ConnectError, EventLog};
use orderlog::{
    audit::{Finding, Report, audit},
    config::Config,
};
use projections::past::{self, ModelReport, UnmatchedRow};
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Args {
    /// Prints the report as JSON.
    #[arg(long)]
    json: bool,
    /// Also compares the serving read models with a fold of the log.
    #[arg(long)]
    read_models: bool,
}

pub async fn run(config: &Config, args: &Args) -> anyhow::Result<ExitCode> {
    let report = match access::log(config).await {
        Ok(log) => {
            let mut report = audit(&*log).await?;
            if args.read_models {
                report.add_read_models(read_models(config, &*log).await?);
            }
            report
        }
        Err(error) => match error.downcast_ref() {
            Some(ConnectError::Damaged { reason, .. }) => Report::of_damage(reason),
            _ => return Err(error),
        },
    };
    if args.json {
        super::print(&serde_json::to_string_pretty(&report)?)?;
    } else {
        tell(&report)?;
    }
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(exit::FAULT) })
}

async fn read_models(config: &Config, log: &dyn EventLog) -> anyhow::Result<Vec<ModelReport>> {
    let audited = async |read_side: &ReadSide| Ok(past::audit(&read_side.pool, log).await?);
    ReadSide::with(config, log, audited).await
}

fn tell_read_model(report: &ModelReport) -> anyhow::Result<()> {
    let ModelReport { model, version, events, rows, parked, found, .. } = report;
    for UnmatchedRow { table, stored, row } in &report.differences {
        let side = if *stored { "only in the read model" } else { "only in the log" };
        super::print(&format!("{model} version {version}, {table}, {side}: {row}"))?;
    }
    for (stream, reason) in &report.refused {
        super::print(&format!(
            "{model} version {version}, {stream} must be parked and is not: {reason}"
        ))?;
    }
    let became = match (report.compared, found) {
        (false, _) => "not compared, another program built it".to_owned(),
        (true, 0) => format!("{rows} rows agree with {events} events"),
        (true, found) => format!("{found} differences between {rows} rows and {events} events"),
    };
    super::print(&format!("{model} version {version}: {became}, {parked} streams parked"))?;
    Ok(())
}

fn tell(report: &Report) -> anyhow::Result<()> {
    if let Some(reason) = &report.damage {
        return Ok(super::print(&format!("the log is damaged and was not walked: {reason}"))?);
    }
    for Finding { partition, offset, fault } in &report.findings {
        super::print(&format!("{partition}:{offset} {}", serde_json::to_string(fault)?))?;
    }
    report.read_models.iter().flatten().try_for_each(tell_read_model)?;
    let Report { partitions, batches, events, streams, found, .. } = report;
    super::print(&format!(
        "{events} events of {streams} streams in {batches} batches and {partitions} partitions: {}",
        if *found == 0 { "nothing is wrong".to_owned() } else { format!("{found} faults") }
    ))?;
    Ok(())
}
