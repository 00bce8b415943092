//! `orderlog serve`.

use super::exit;
use anyhow::Context;
use events::full_text;
use orderlog::{
    auth::Role,
    config::{Config, LogChoice},
    data_dir::url_of,
    shutdown::Signals,
    startup::{Death, Running},
};
use std::{process::ExitCode, time::Duration};

/// How long a soft stop may take. Container runtimes kill a process after 30 s.
const SOFT_STOP: Duration = Duration::from_secs(25);

/// How long the greeting waits for the partitions to open.
const OPENING: Duration = Duration::from_secs(30);

pub async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen().context("signals cannot be received")?;
    let start = Running::start(config.clone());
    let mut running = tokio::select! {
        started = start => started?,
        // Nothing has been accepted yet, and a hard stop is always safe.
        signal = signals.next() => {
            tracing::info!(signal, "stopped during the start");
            return Ok(ExitCode::from(exit::FAULT));
        }
    };
    let died = tokio::select! {
        // The greeting waits until the partitions are open, so that its command works when pasted.
        died = async {
            let _ = tokio::time::timeout(OPENING, running.ready()).await;
            if let Err(error) = greet(&config, &running) {
                // Standard output may be closed. That does not stop the program.
                tracing::warn!(error = %format!("{error:#}"), "the greeting was not printed");
            }
            running.died().await
        } => Some(died),
        signal = signals.next() => {
            tracing::info!(signal, "stopping; a second signal stops at once");
            None
        }
    };
    match &died {
        Some(Death::Part(part)) => {
            tracing::error!(part, "a part of the program has failed, stopping");
        }
        Some(Death::Log) => {
            tracing::error!("the log accepts nothing from this process any more, stopping");
        }
        Some(Death::Database(error)) => {
            let error = full_text(error);
            tracing::error!(error, "the private database does not stay up, stopping");
        }
        None => {}
    }
    tokio::select! {
        stopped = tokio::time::timeout(SOFT_STOP, running.stop()) => {
            if stopped.is_err() {
                tracing::warn!("the soft stop took too long, stopping at once");
                return Ok(ExitCode::from(exit::FAULT));
            }
        }
        signal = signals.next() => {
            tracing::warn!(signal, "stopping at once");
            return Ok(ExitCode::from(exit::FAULT));
        }
    }
    match died {
        Some(Death::Part(_)) => Ok(ExitCode::from(exit::SOFTWARE)),
        Some(Death::Log) => Ok(ExitCode::from(exit::LOG_LOST)),
        Some(Death::Database(error)) => Err(error.into()),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Prints the greeting to standard output: the address, where the data is, a token, and a command
/// to paste.
fn greet(config: &Config, running: &Running) -> anyhow::Result<()> {
    let url = url_of(running.address());
    super::print(&format!("orderlog is running on {url} (try it at {url}/docs)"))?;
    super::print(&format!("data: {}", describe_data(config, running)))?;
    let Some(token) = running.sign(Role::Staff, None).transpose()? else { return Ok(()) };
    super::print(&format!("staff token, valid for 24 hours: {token}"))?;
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
