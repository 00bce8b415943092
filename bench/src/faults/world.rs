//! All processes of a run: the broker, the database and the processes of the program.

use super::{
    args::{Args, LogKind},
    process::{Service, Setting},
    servers::{Broker, Database},
    traffic::Traffic,
};
use anyhow::{Context, Result, ensure};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// How long after a fault the program may take to be ready again.
const READY: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_millis(200);

/// The journal of the sandbox gateway, in a data directory.
const JOURNAL: &str = "sandbox-gateway.jsonl";

/// The processes into which the nemesis injects faults.
pub struct World {
    began: Instant,
    /// The folder of the run.
    pub dir: PathBuf,
    /// PostgreSQL.
    pub database: Database,
    broker: Option<Broker>,
    /// The processes that can own the log: two, or one with the embedded log.
    services: Vec<Service>,
    /// The index of the process that owns the log.
    serving: usize,
    reader: Option<Service>,
    /// The clients.
    pub traffic: Arc<Traffic>,
    /// Things that the program's processes did and must not do.
    pub complaints: Vec<String>,
}

impl World {
    /// Starts everything.
    ///
    /// # Errors
    /// When a server or process does not start.
    pub async fn start(args: &Args, seed: u64, dir: &Path) -> Result<Self> {
        let began = Instant::now();
        let folder = |name: &str| dir.join(name);
        std::fs::create_dir_all(folder("logs"))?;
        let database = Database::start(folder("database")).await?;
        let broker = match args.log {
            LogKind::Kafka => Some(Broker::start(folder("kafka"), args.kafka_port).await?),
            LogKind::Embedded => None,
        };
        let setting = Setting {
            program: program(args)?,
            kafka: broker.as_ref().map(|broker| broker.proxy.address().to_string()),
            database: database.url()?,
            logs: folder("logs"),
        };
        let all = "command,projector,query";
        let mut services = vec![Service::new("first", &setting, folder("first"), all)?];
        let token = services[0].start().await?;
        let mut reader = None;
        if broker.is_some() {
            let second = Service::new("second", &setting, folder("second"), all)?;
            share(services[0].data_dir(), second.data_dir())?;
            services.push(second);
            let mut third = Service::new("reader", &setting, folder("reader"), "projector,query")?;
            share(services[0].data_dir(), third.data_dir())?;
            third.start().await?;
            reader = Some(third);
        }
        let traffic = Arc::new(Traffic::new(token, seed, services[0].url())?);
        let (dir, complaints) = (dir.to_owned(), Vec::new());
        Ok(Self { began, dir, database, broker, services, serving: 0, reader, traffic, complaints })
    }

    /// The process that owns the log.
    pub fn service(&mut self) -> &mut Service {
        &mut self.services[self.serving]
    }

    /// The broker.
    ///
    /// # Errors
    /// With the embedded log there is no broker.
    pub fn broker(&self) -> Result<&Broker> {
        self.broker.as_ref().context("there is no broker")
    }

    /// The process that only feeds and queries the read models. Without one, the process that does
    /// everything.
    pub fn reader(&mut self) -> &mut Service {
        self.reader.as_mut().unwrap_or(&mut self.services[self.serving])
    }

    /// Prints a line with the time and the counters on standard output.
    pub fn say(&self, what: &str) {
        println!(
            "{:>7.1} s  {:>7} sent {:>7} acknowledged  {what}",
            self.began.elapsed().as_secs_f64(),
            self.traffic.sent(),
            self.traffic.acknowledged(),
        );
    }

    /// Starts the process that does not own the log, which then takes it over. Clients use both
    /// processes from now on.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_other(&mut self) -> Result<()> {
        let (here, other) = (self.serving, (self.serving + 1) % self.services.len());
        self.services[other].start().await?;
        let both = vec![self.services[here].url(), self.services[other].url()];
        self.traffic.targets.send_replace(both);
        Ok(())
    }

    /// Ends the process that owned the log before.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn other_serves_alone(&mut self, gracefully: bool) -> Result<()> {
        let (before, now) = (self.serving, (self.serving + 1) % self.services.len());
        self.traffic.targets.send_replace(vec![self.services[now].url()]);
        if gracefully {
            let complaint = self.services[before].stop().await?;
            self.complaints.extend(complaint);
        } else {
            self.services[before].kill().await?;
        }
        self.serving = now;
        Ok(())
    }

    /// Waits until the program is ready again after a fault. If it does not become ready, reports
    /// that and restarts it.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn ready(&mut self) -> Result<()> {
        let url = self.services[self.serving].url();
        let deadline = Instant::now() + READY;
        while !self.traffic.is_ready(&url).await {
            if Instant::now() < deadline {
                sleep(LOOK).await;
                continue;
            }
            let what = format!("{url} is not ready {} s after a fault", READY.as_secs());
            self.say(&what);
            self.complaints.push(what);
            self.service().kill().await?;
            self.service().start().await?;
            return Ok(());
        }
        Ok(())
    }

    /// Reports and restarts processes that ended by themselves.
    ///
    /// # Errors
    /// When a process does not start.
    pub async fn revive(&mut self) -> Result<()> {
        let mut died = Vec::new();
        for service in self.services.iter_mut().chain(&mut self.reader) {
            if let Some(how) = service.has_died()? {
                died.push(how);
                service.start().await?;
            }
        }
        for how in &died {
            self.say(how);
        }
        self.complaints.extend(died);
        Ok(())
    }

    /// The data directory that contains the embedded log.
    pub fn log_dir(&self) -> &Path {
        self.services[0].data_dir()
    }

    /// The path of the gateway's journal.
    pub fn journal(&self) -> PathBuf {
        self.log_dir().join(JOURNAL)
    }

    /// Stops the program's processes gracefully.
    ///
    /// # Errors
    /// When a process does not end.
    pub async fn stop(&mut self) -> Result<()> {
        let mut complaints = Vec::new();
        for service in self.services.iter_mut().chain(&mut self.reader) {
            if service.runs() {
                complaints.extend(service.stop().await?);
            }
        }
        self.complaints.extend(complaints);
        Ok(())
    }
}

/// Processes that share a log also share the signing key of tokens and the gateway's journal.
fn share(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    std::fs::copy(from.join("auth.key"), to.join("auth.key"))?;
    std::os::unix::fs::symlink(from.join(JOURNAL), to.join(JOURNAL))?;
    Ok(())
}

fn program(args: &Args) -> Result<PathBuf> {
    let beside = || {
        let harness = std::env::current_exe()?;
        // target/<profile>/deps/faults-<hash>
        let folder = harness
            .parent()
            .and_then(Path::parent)
            .context("this harness is not in a target folder")?;
        anyhow::Ok(folder.join("orderlog"))
    };
    let program = args.program.clone().map_or_else(beside, Ok)?;
    ensure!(program.is_file(), "there is no {}: build it first", program.display());
    Ok(program.canonicalize()?)
}
