//! `orderlog rebuild`.

use super::access::{self, ReadSide};
use anyhow::{Context, bail};
use events::{Environment, environment::System, log::EventLog};
use indicatif::{ProgressBar, ProgressStyle};
use orderlog::config::Config;
use projections::{
    Progress, Projector, ProjectorSettings, ReadModel,
    rebuild::{self, State, VersionStatus},
};
use std::{io::IsTerminal, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

/// How often progress is shown.
const LOOK: Duration = Duration::from_millis(200);

/// How often where there is no terminal: each time is a line.
const LINE: Duration = Duration::from_secs(5);

/// When nothing has moved for this long, no projector runs anywhere: leases of a killed one are
/// over by then.
const NOBODY: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub struct Args {
    /// orders, products, customers or history
    name: ReadModel,
}

pub async fn run(config: &Config, args: Args) -> anyhow::Result<()> {
    let log = access::log(config).await?;
    let read_side = ReadSide::open(config).await?;
    projections::prepare(&read_side.pool, log.partitions()).await?;
    let built = Rebuild { log, read_side: &read_side, model: args.name }.run().await;
    read_side.close().await?;
    built
}

struct Rebuild<'a> {
    log: Arc<dyn EventLog>,
    read_side: &'a ReadSide,
    model: ReadModel,
}

impl Rebuild<'_> {
    async fn run(self) -> anyhow::Result<()> {
        let version = rebuild::request(&self.read_side.pool, self.model).await?;
        super::print(&format!("building version {version} of {}", self.model))?;
        let mut projector = None;
        if self.read_side.is_ours() {
            projector = Some(self.projector().await?);
        }
        let mut shown = Shown::new();
        let (mut events, mut moved) = (0, Instant::now());
        loop {
            let status = self.status(version).await?;
            if status.serving {
                break;
            }
            if status.state == State::Stopped {
                bail!("version {version} has stopped: {}", reason(&status));
            }
            if status.events != events {
                (events, moved) = (status.events, Instant::now());
            }
            if projector.is_none() && moved.elapsed() > NOBODY {
                super::print("no projector runs, building it here")?;
                projector = Some(self.projector().await?);
            }
            shown.show(&status)?;
            sleep(LOOK).await;
        }
        shown.end();
        if let Some(projector) = projector {
            projector.stop().await;
        }
        super::print(&format!("version {version} of {} serves", self.model))?;
        Ok(())
    }

    async fn projector(&self) -> anyhow::Result<Projector> {
        let environment: Arc<dyn Environment> = Arc::new(System::new());
        let settings =
            ProjectorSettings { models: vec![self.model], ..ProjectorSettings::default() };
        let (log, options) = (Arc::clone(&self.log), self.read_side.options.clone());
        let progress = Progress::new(log.partitions());
        Ok(Projector::start(log, options, environment, progress, settings).await?)
    }

    async fn status(&self, version: u32) -> anyhow::Result<VersionStatus> {
        let all = rebuild::status(&self.read_side.pool, &*self.log).await?;
        all.into_iter()
            .find(|status| status.model == self.model && status.version == version)
            .with_context(|| format!("version {version} is gone: the rebuild was cancelled"))
    }
}

fn reason(status: &VersionStatus) -> &str {
    status.partitions.iter().find_map(|partition| partition.stopped.as_deref()).unwrap_or("unknown")
}

/// A bar on a terminal, lines elsewhere.
enum Shown {
    Bar(ProgressBar),
    Lines { last: Option<Instant> },
}

impl Shown {
    fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Lines { last: None };
        }
        let bar = ProgressBar::new(0);
        let style = "{bar:40} {pos}/{len} events, {per_sec}, {eta} to go";
        bar.set_style(
            ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        Self::Bar(bar)
    }

    fn show(&mut self, status: &VersionStatus) -> std::io::Result<()> {
        let (done, total) = (status.events, status.events + status.lag_events);
        match self {
            Self::Bar(bar) => {
                bar.set_length(total.unsigned_abs());
                bar.set_position(done.unsigned_abs());
            }
            Self::Lines { last } if last.is_none_or(|last| last.elapsed() >= LINE) => {
                *last = Some(Instant::now());
                super::print(&format!("{done} of {total} events"))?;
            }
            Self::Lines { .. } => {}
        }
        Ok(())
    }

    fn end(self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
