//! `orderlog audit`.

use super::{access, exit};
use events::log::ConnectError;
use orderlog::{
    audit::{Finding, Report, audit},
    config::Config,
};
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Args {
    /// Prints the report as JSON.
    #[arg(long)]
    json: bool,
}

pub async fn run(config: &Config, args: &Args) -> anyhow::Result<ExitCode> {
    let report = match access::log(config).await {
        Ok(log) => audit(&*log).await?,
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

fn tell(report: &Report) -> anyhow::Result<()> {
    if let Some(reason) = &report.damage {
        return Ok(super::print(&format!("the log is damaged, and was not walked: {reason}"))?);
    }
    for Finding { partition, offset, fault } in &report.findings {
        super::print(&format!("{partition}:{offset} {}", serde_json::to_string(fault)?))?;
    }
    let Report { partitions, batches, events, streams, found, .. } = report;
    super::print(&format!(
        "{events} events of {streams} streams in {batches} batches and {partitions} partitions: {}",
        if *found == 0 { "nothing is wrong".to_owned() } else { format!("{found} faults") }
    ))?;
    Ok(())
}
