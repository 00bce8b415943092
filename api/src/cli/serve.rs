//! `orderlog serve`.

use super::exit;
use anyhow::Context;
use orderlog::{
    auth::Role,
    config::{Config, LogChoice},
    data_dir::url_of,
    shutdown::Signals,
    startup::Running,
};
use std::{process::ExitCode, time::Duration};

/// What was accepted is finished in this time, or cut off: a container's grace period is 30 s.
const SOFT_STOP: Duration = Duration::from_secs(25);

/// How long the first lines wait for the partitions to open.
const OPENING: Duration = Duration::from_secs(30);

pub async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen().context("signals cannot be received")?;
    let start = Running::start(config.clone());
    let mut running = tokio::select! {
        started = start => started?,
        // Nothing was accepted yet, and a hard end is always safe.
        signal = signals.next() => {
            tracing::info!(signal, "ended before it ran");
            return Ok(ExitCode::from(exit::FAULT));
        }
    };
    let died = tokio::select! {
        // Until the partitions are open, a pasted command would be refused.
        died = async {
            let _ = tokio::time::timeout(OPENING, running.ready()).await;
            if let Err(error) = greet(&config, &running) {
                // Nobody reads it; the program runs all the same.
                tracing::warn!(error = %format!("{error:#}"), "the first lines were not printed");
            }
            running.died().await
        } => Some(died),
        signal = signals.next() => {
            tracing::info!(signal, "stopping, once more ends at once");
            None
        }
    };
    if let Some(part) = &died {
        tracing::error!(part, "a part of the program died");
    }
    tokio::select! {
        stopped = tokio::time::timeout(SOFT_STOP, running.stop()) => {
            if stopped.is_err() {
                tracing::warn!("not everything ended in time");
                return Ok(ExitCode::from(exit::FAULT));
            }
        }
        signal = signals.next() => {
            tracing::warn!(signal, "ended at once");
            return Ok(ExitCode::from(exit::FAULT));
        }
    }
    Ok(if died.is_some() { ExitCode::from(exit::SOFTWARE) } else { ExitCode::SUCCESS })
}

/// The first lines on standard output: where it is, where the data is, a token, and something to
/// paste.
fn greet(config: &Config, running: &Running) -> anyhow::Result<()> {
    let url = url_of(running.address());
    super::print(&format!("orderlog is running on {url} (try it at {url}/docs)"))?;
    super::print(&format!("data: {}", describe_data(config, running)))?;
    let Some(token) = running.sign(Role::Staff, None).transpose()? else { return Ok(()) };
    super::print(&format!("staff token, good for 24 hours: {token}"))?;
    super::print("add a product:")?;
    let product = serde_json::json!({
        "name": "A book",
        "price": {"amount": 1299, "currency": config.currency},
        "initial_stock": 100,
    });
    let headers = format!("-H 'Authorization: Bearer {token}' -H 'Content-Type: application/json'");
    super::print(&format!("  curl -i {url}/api/v1/products {headers} -d '{product}'"))?;
    Ok(())
}

fn describe_data(config: &Config, running: &Running) -> String {
    let log = match &config.log {
        LogChoice::Embedded => "embedded log".to_owned(),
        LogChoice::Kafka { bootstrap_servers, topic, .. } => {
            format!("log: topic {topic} at {bootstrap_servers}")
        }
    };
    let database = match &config.database {
        None => "private PostgreSQL".to_owned(),
        Some(options) => format!("PostgreSQL at {}:{}", options.get_host(), options.get_port()),
    };
    format!("{} ({log}, {database})", running.data_dir().display())
}
