//! `orderlog parked`.

use super::access::{self, ReadSide};
use events::{StreamId, log::EventLog};
use orderlog::config::Config;
use projections::{
    ReadModel,
    parked::{self, ParkedStream, Retried, RetryReport},
    rebuild,
};
use sqlx::PgPool;
use std::{process::ExitCode, sync::Arc};

/// Streams read in one query.
const PAGE: u32 = 200;

#[derive(clap::Args)]
pub struct Args {
    /// Tries to apply the parked events of this stream, such as `order-0192d3f4-...`, after a fix.
    #[arg(long, value_name = "STREAM")]
    retry: Option<StreamId>,
    /// Lets the new version of this read model serve without its parked streams.
    #[arg(long, value_name = "NAME", conflicts_with = "retry")]
    accept: Option<ReadModel>,
}

/// The exit code is 1 if the stream is still parked after a retry.
pub async fn run(config: &Config, args: &Args) -> anyhow::Result<ExitCode> {
    let log = access::log(config).await?;
    let work = async |read_side: &ReadSide| carry_out(&read_side.pool, &log, args).await;
    ReadSide::with(config, &*log, work).await
}

async fn carry_out(
    pool: &PgPool,
    log: &Arc<dyn EventLog>,
    args: &Args,
) -> anyhow::Result<ExitCode> {
    if let Some(stream) = args.retry {
        return tried(&parked::retry(pool, log, stream).await?);
    }
    let Some(model) = args.accept else { return show(pool).await };
    let version = rebuild::accept(pool, model).await?;
    super::print(&format!("version {version} of {model} may serve"))?;
    Ok(ExitCode::SUCCESS)
}

fn tried(retried: &[RetryReport]) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for RetryReport { model, version, applied, result } in retried {
        let became = match result {
            Retried::Drained => "no longer parked".to_owned(),
            Retried::Stale => "left alone: another program feeds it".to_owned(),
            Retried::Parked { position, reason } => {
                code = ExitCode::FAILURE;
                format!("still parked at {position}: {reason}")
            }
        };
        super::print(&format!("{model} version {version}: {applied} events applied, {became}"))?;
    }
    Ok(code)
}

async fn show(pool: &PgPool) -> anyhow::Result<ExitCode> {
    let mut after = None;
    loop {
        let page = parked::list(pool, after, PAGE).await?;
        for parked in &page {
            super::print(&line(parked))?;
        }
        match page.last() {
            Some(last) => after = Some(last.cursor()),
            None => return Ok(ExitCode::SUCCESS),
        }
    }
}

fn line(parked: &ParkedStream) -> String {
    let ParkedStream { model, version, stream, stream_version, position, events, .. } = parked;
    let (serving, reason) = (if parked.serving { ", serving" } else { "" }, &parked.reason);
    format!(
        "{model} version {version}{serving}: {stream} from version {stream_version} at {position} \
         on, {events} events: {reason}"
    )
}
