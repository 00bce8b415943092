//! Everything that runs in a run: the broker, the database, the program's processes.

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

/// So long after a fault everything works again.
const READY: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_millis(200);

/// What the sandbox gateway writes down, in a data directory.
const JOURNAL: &str = "sandbox-gateway.jsonl";

/// The world that the nemesis hurts.
pub struct World {
    began: Instant,
    /// Where all its files are.
    pub dir: PathBuf,
    /// PostgreSQL.
    pub database: Database,
    broker: Option<Broker>,
    /// Two that can own the log; with the embedded log one.
    services: Vec<Service>,
    /// Which of them does.
    serving: usize,
    reader: Option<Service>,
    /// The clients.
    pub traffic: Arc<Traffic>,
    /// What the program's processes did that they must not do.
    pub complaints: Vec<String>,
}

impl World {
    /// Starts everything.
    ///
    /// # Errors
    /// When something does not come up.
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
    /// With the embedded log there is none.
    pub fn broker(&self) -> Result<&Broker> {
        self.broker.as_ref().context("there is no broker")
    }

    /// The process that only feeds and asks the read models; without one, the one that does all.
    pub fn reader(&mut self) -> &mut Service {
        self.reader.as_mut().unwrap_or(&mut self.services[self.serving])
    }

    /// Tells on standard output what happens, and when.
    pub fn say(&self, what: &str) {
        println!(
            "{:>7.1} s  {:>7} sent {:>7} acknowledged  {what}",
            self.began.elapsed().as_secs_f64(),
            self.traffic.sent(),
            self.traffic.acknowledged(),
        );
    }

    /// Starts the process that does not own the log, which takes it; clients ask both from now on.
    ///
    /// # Errors
    /// When it does not come up.
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
    pub async fn other_serves_alone(&mut self, softly: bool) -> Result<()> {
        let (before, now) = (self.serving, (self.serving + 1) % self.services.len());
        self.traffic.targets.send_replace(vec![self.services[now].url()]);
        if softly {
            let complaint = self.services[before].stop().await?;
            self.complaints.extend(complaint);
        } else {
            self.services[before].kill().await?;
        }
        self.serving = now;
        Ok(())
    }

    /// Waits until the program is ready again, after a fault is over; one that stays closed is told, and started anew.
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

    /// Processes that ended by themselves: told, and started again.
    ///
    /// # Errors
    /// When one does not start.
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

    /// Where the embedded log is, if it is embedded.
    pub fn log_dir(&self) -> &Path {
        self.services[0].data_dir()
    }

    /// What the gateway did.
    pub fn journal(&self) -> PathBuf {
        self.log_dir().join(JOURNAL)
    }

    /// Ends the program's processes, softly.
    ///
    /// # Errors
    /// When they do not end.
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

/// Processes that share a log share who may sign tokens, and the gateway.
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
        let folder = harness.parent().and_then(Path::parent).context("no folder")?;
        anyhow::Ok(folder.join("orderlog"))
    };
    let program = args.program.clone().map_or_else(beside, Ok)?;
    ensure!(program.is_file(), "there is no {}: build it first", program.display());
    Ok(program.canonicalize()?)
}
