//! `orderlog rebuild`.

use super::{
    access::{self, ReadSide},
    travel,
};
use anyhow::{Context, bail};
use events::{Environment, environment::System, log::EventLog};
use indicatif::{ProgressBar, ProgressStyle};
use orderlog::config::Config;
use projections::{
    Progress, Projector, ProjectorSettings, ReadModel,
    rebuild::{self, Difference, Manner, RebuildError, RebuildStatus, State, VersionStatus},
};
use std::{io::IsTerminal, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

/// How often progress is read and shown on a terminal.
const POLL: Duration = Duration::from_millis(200);

/// How often progress is printed as a line, without a terminal.
const LINE: Duration = Duration::from_secs(5);

/// Without progress for this long, no projector runs anywhere: the leases of a killed one have
/// expired by then.
const NO_PROJECTOR: Duration = Duration::from_secs(10);

/// How many polls in a row must find a version complete but for its parked streams before the
/// command says that it will not serve by itself.
const PARKED_POLLS: u32 = 25;

#[derive(clap::Args)]
pub struct Args {
    /// Read models to rebuild, such as orders; `orderlog projections` lists them. Several are built
    /// from one reading of the log
    #[arg(value_name = "NAME", required = true)]
    names: Vec<ReadModel>,
    /// Builds a version only to compare it with the serving one, and drops it again; the exit code
    /// is 1 if they differ.
    #[arg(long)]
    verify_only: bool,
    /// Lets the new version serve even if its rows differ from the serving version's, or if it has
    /// parked streams; continues a rebuild that is under way or waits for this.
    #[arg(long, conflicts_with_all = ["verify_only", "travel"])]
    accept: bool,
    /// Spares the machine; the rebuild takes longer.
    #[arg(long)]
    throttle: bool,
    #[command(flatten)]
    travel: travel::Args,
}

pub async fn run(config: &Config, args: Args) -> anyhow::Result<()> {
    if travel::run(config, &args.names, &args.travel).await? {
        return Ok(());
    }
    let log = access::log(config).await?;
    let manner = Manner { gentle: args.throttle, verify_only: args.verify_only };
    let (models, accept) = (&args.names, args.accept);
    let build = async |read_side: &ReadSide| {
        Rebuild { log: Arc::clone(&log), read_side, models, manner, accept }.run().await
    };
    ReadSide::with(config, &*log, build).await
}

struct Rebuild<'a> {
    log: Arc<dyn EventLog>,
    read_side: &'a ReadSide,
    models: &'a [ReadModel],
    manner: Manner,
    accept: bool,
}

impl Rebuild<'_> {
    /// Requests the versions to build. With `--accept` a rebuild under way is taken over instead.
    async fn begin(&self) -> anyhow::Result<Vec<u32>> {
        let pool = &self.read_side.pool;
        match rebuild::request_all(pool, self.models, self.manner).await {
            Err(RebuildError::UnderWay(_)) if self.accept => {}
            begun => return Ok(begun?),
        }
        let (all, mut versions) = (rebuild::status(pool, &*self.log).await?, Vec::new());
        for model in self.models {
            match all.iter().find(|it| it.model == *model && it.rebuild.is_some()) {
                Some(building) => versions.push(building.version),
                None => versions.extend(rebuild::request_all(pool, &[*model], self.manner).await?),
            }
        }
        Ok(versions)
    }

    /// Prints the differences of a version and accepts it.
    async fn accept(&self, status: &VersionStatus) -> anyhow::Result<()> {
        for difference in status.rebuild.iter().flat_map(|rebuild| &rebuild.differences) {
            super::print(&told(difference))?;
        }
        let version = rebuild::accept(&self.read_side.pool, status.model).await?;
        super::print(&format!("version {version} of {} may serve", status.model))?;
        Ok(())
    }

    async fn run(self) -> anyhow::Result<()> {
        let versions = self.begin().await?;
        for (model, version) in self.models.iter().zip(&versions) {
            super::print(&format!("building version {version} of {model}"))?;
        }
        let mut projector = None;
        if self.read_side.is_ours() {
            projector = Some(self.projector().await?);
        }
        let mut built = Vec::new();
        for (&model, version) in self.models.iter().zip(versions) {
            built.push(self.follow(model, version, &mut projector).await);
        }
        if let Some(projector) = projector {
            projector.stop().await;
        }
        let mut failed = None;
        for last in built {
            let concluded = match last {
                Ok(last) => self.conclude(&last).await,
                Err(error) => Err(error),
            };
            // Each read model may fail. The last error is returned, the others are printed.
            if let Err(error) = concluded
                && let Some(earlier) = failed.replace(error)
            {
                super::print(&format!("{earlier:#}"))?;
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Shows the progress of one version until it serves, or will not serve.
    async fn follow(
        &self,
        model: ReadModel,
        version: u32,
        projector: &mut Option<Projector>,
    ) -> anyhow::Result<VersionStatus> {
        let mut shown = Shown::new();
        let (mut events, mut moved, mut complete) = (0, Instant::now(), 0);
        let last = loop {
            let status = self.status(model, version).await?;
            let compared = status.rebuild.as_ref().and_then(|rebuild| rebuild.verified);
            let differs = matches!(compared, Some("different" | "undeclared"));
            if differs && self.accept {
                self.accept(&status).await?;
                continue;
            }
            if status.serving || differs || (self.manner.verify_only && compared.is_some()) {
                break status;
            }
            if status.state == State::Stopped {
                bail!("version {version} has stopped: {}", reason(&status));
            }
            if let Some(reason) = &status.stale {
                bail!("version {version} is not built by this program: {reason}");
            }
            if status.parked_streams > 0 && status.lag_events == status.parked_events {
                complete += 1;
            }
            if complete > PARKED_POLLS && self.accept {
                self.accept(&status).await?;
                complete = 0;
            }
            if complete > PARKED_POLLS {
                let parked = status.parked_streams;
                bail!(
                    "version {version} of {model} is complete but for {parked} parked streams, \
                     which the serving version shows: list them with `orderlog parked`, then fix \
                     the fault and run `orderlog parked --retry STREAM`, or let the new version \
                     serve without them with `orderlog rebuild {model} --accept`"
                );
            }
            if status.events != events {
                (events, moved) = (status.events, Instant::now());
            }
            let paused = status.rebuild.as_ref().is_some_and(|it| it.phase == "paused");
            if projector.is_none() && !paused && moved.elapsed() > NO_PROJECTOR {
                super::print("no projector is running, building the version in this process")?;
                *projector = Some(self.projector().await?);
            }
            shown.show(&status)?;
            sleep(POLL).await;
        };
        shown.end();
        Ok(last)
    }

    /// Prints the result. With `--verify-only` the version is dropped, otherwise a version that
    /// differs is kept for inspection.
    async fn conclude(&self, last: &VersionStatus) -> anyhow::Result<()> {
        let (model, version) = (last.model, last.version);
        let Some(rebuild) = &last.rebuild else {
            super::print(&format!("version {version} of {model} serves"))?;
            return Ok(());
        };
        if self.manner.verify_only {
            rebuild::cancel(&self.read_side.pool, model).await?;
        }
        match rebuild.verified {
            Some("different" | "undeclared") => {}
            Some("equal") => {
                super::print(&format!(
                    "version {version} of {model} has the same rows as the serving version"
                ))?;
                return Ok(());
            }
            Some("parked") => bail!("nothing was compared: {model} has parked streams"),
            _ => {
                bail!("nothing was compared: another program built the serving version of {model}")
            }
        }
        for difference in &rebuild.differences {
            super::print(&told(difference))?;
        }
        let kept = if self.manner.verify_only {
            String::new()
        } else {
            format!(
                "; it does not serve and is kept in schema {model}_v{version} until the rebuild is \
                 cancelled, or accepted with `orderlog rebuild {model} --accept`"
            )
        };
        if rebuild.verified == Some("undeclared") {
            bail!(
                "version {version} of {model} differs from the serving version, which another \
                 program of the same revision built{kept}"
            );
        }
        bail!("version {version} of {model} differs from the serving version{kept}")
    }

    async fn projector(&self) -> anyhow::Result<Projector> {
        let environment: Arc<dyn Environment> = Arc::new(System::new());
        let settings = ProjectorSettings {
            models: self.models.to_vec(),
            rebuild_on_upgrade: false,
            ..ProjectorSettings::default()
        };
        let (log, options) = (Arc::clone(&self.log), self.read_side.options.clone());
        let progress = Progress::new(log.partitions());
        Ok(Projector::start(log, options, environment, progress, settings).await?)
    }

    async fn status(&self, model: ReadModel, version: u32) -> anyhow::Result<VersionStatus> {
        let all = rebuild::status(&self.read_side.pool, &*self.log).await?;
        all.into_iter()
            .find(|status| status.model == model && status.version == version)
            .with_context(|| format!("version {version} is gone: the rebuild was cancelled"))
    }
}

fn told(difference: &Difference) -> String {
    let Difference { table, partition, key, serving, rebuilt, position } = difference;
    let row = |row: &Option<String>| row.clone().unwrap_or_else(|| "no row".to_owned());
    let since = position.map(|at| format!(", since the event at {at}")).unwrap_or_default();
    format!(
        "{table} {key} (partition {partition}) differs{since}\n  serving: {}\n  rebuilt: {}",
        row(serving),
        row(rebuilt)
    )
}

fn reason(status: &VersionStatus) -> &str {
    status.partitions.iter().find_map(|partition| partition.stopped.as_deref()).unwrap_or("unknown")
}

/// Phase, rate and remaining time, with the same numbers as `/admin/projections`.
fn pace(rebuild: &RebuildStatus) -> String {
    let rate = rebuild.events_per_second;
    match rebuild.seconds_left {
        Some(left) => format!("{}, {rate:.0} events/s, {left:.0} s left", rebuild.phase),
        None => rebuild.phase.to_owned(),
    }
}

/// How progress is shown: a bar on a terminal, else lines.
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
        let style = "{bar:40} {pos}/{len} events, {msg}";
        bar.set_style(
            ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        Self::Bar(bar)
    }

    fn show(&mut self, status: &VersionStatus) -> std::io::Result<()> {
        let (done, total) = (status.events, status.events + status.lag_events);
        let pace = status.rebuild.as_ref().map(pace).unwrap_or_default();
        match self {
            Self::Bar(bar) => {
                bar.set_length(total.unsigned_abs());
                bar.set_position(done.unsigned_abs());
                bar.set_message(format!("{}: {pace}", status.model));
            }
            Self::Lines { last } if last.is_none_or(|last| last.elapsed() >= LINE) => {
                *last = Some(Instant::now());
                super::print(&format!("{}: {done} of {total} events, {pace}", status.model))?;
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
