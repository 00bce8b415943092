//! `orderlog projections`.

use super::access::{self, ReadSide};
use orderlog::config::Config;
use projections::rebuild::{self, VersionStatus};

pub async fn run(config: &Config) -> anyhow::Result<()> {
    let log = access::log(config).await?;
    let asked = async |read_side: &ReadSide| Ok(rebuild::status(&read_side.pool, &*log).await?);
    let versions = ReadSide::with(config, &*log, asked).await?;
    super::print(&format!(
        "{:<10} {:>7} {:<8} {:>12} {:>10} {:>8}  {}",
        "name", "version", "state", "events", "lag", "lag s", "serves"
    ))?;
    for version in versions {
        super::print(&line(&version))?;
        if let Some(reason) = &version.stale {
            super::print(&format!("  not fed by this program: {reason}"))?;
        }
        for partition in &version.partitions {
            if let Some(reason) = &partition.stopped {
                super::print(&format!("  partition {} stopped: {reason}", partition.partition))?;
            }
        }
        if version.parked_streams > 0 {
            let (streams, events) = (version.parked_streams, version.parked_events);
            super::print(&format!("  parked: {streams} streams, {events} events"))?;
        }
    }
    Ok(())
}

fn line(version: &VersionStatus) -> String {
    format!(
        "{:<10} {:>7} {:<8} {:>12} {:>10} {:>8.1}  {}",
        version.model.as_str(),
        version.version,
        version.state.as_str(),
        version.events,
        version.lag_events,
        version.lag_seconds,
        if version.serving { "yes" } else { "no" }
    )
}
