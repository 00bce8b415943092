//! `orderlog rebuild --as-of` and `--stream`: a read model as it was, or the rows of one stream.

use super::access::{self, ReadSide};
use anyhow::bail;
use events::{Environment, StreamId, environment::System, log::EventLog};
use orderlog::config::Config;
use projections::{
    ReadModel,
    past::{self, Moment, Past, Rebuilt},
};
use sqlx::PgPool;

#[derive(clap::Args)]
#[group(id = "travel")]
pub struct Args {
    /// Builds the read model as it was at this time or Log-Position, into a schema of its own.
    #[arg(long, value_name = "TIME|TOKEN")]
    as_of: Option<Moment>,
    /// Rebuilds the rows of this stream only, in the serving version.
    #[arg(long, value_name = "STREAM", conflicts_with = "as_of")]
    stream: Option<StreamId>,
}

/// Carries out `--as-of` or `--stream`. Returns `false` if neither is given.
pub async fn run(config: &Config, models: &[ReadModel], args: &Args) -> anyhow::Result<bool> {
    if args.as_of.is_none() && args.stream.is_none() {
        return Ok(false);
    }
    let log = access::log(config).await?;
    let work = async |read_side: &ReadSide| {
        for &model in models {
            carry_out(&read_side.pool, &*log, model, args).await?;
        }
        Ok(())
    };
    ReadSide::with(config, &*log, work).await?;
    Ok(true)
}

async fn carry_out(
    pool: &PgPool,
    log: &dyn EventLog,
    model: ReadModel,
    args: &Args,
) -> anyhow::Result<()> {
    if let Some(moment) = &args.as_of {
        tell(&past::as_of(pool, log, model, moment, System::new().now()).await?)?;
    }
    if let Some(stream) = args.stream {
        tell_stream(model, stream, past::rebuild_stream(pool, log, model, stream).await?)?;
    }
    Ok(())
}

fn tell(past: &Past) -> anyhow::Result<()> {
    let Past { schema, events, refused } = past;
    super::print(&format!("{events} events in schema {schema}"))?;
    for (stream, reason) in refused {
        super::print(&format!("{stream} is incomplete: {reason}"))?;
    }
    if refused.is_empty() { Ok(()) } else { bail!("{} streams are incomplete", refused.len()) }
}

fn tell_stream(model: ReadModel, stream: StreamId, rebuilt: Rebuilt) -> anyhow::Result<()> {
    let Rebuilt { version, events, rows: (before, after) } = rebuilt;
    super::print(&format!(
        "{stream} in {model} version {version}: {events} events, {before} rows before, {after} now"
    ))?;
    Ok(())
}
