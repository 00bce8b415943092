//! A process of the program.

use anyhow::{Context, Result, bail, ensure};
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

/// How long a start may take; a fault may delay it.
const START: Duration = Duration::from_mins(3);

/// Time between two tries to start.
const AGAIN: Duration = Duration::from_millis(500);

/// How long to wait for a graceful stop, which takes at most 25 s.
const STOP: Duration = Duration::from_secs(40);

/// The settings shared by all processes of a run.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The program.
    pub program: PathBuf,
    /// The address of Kafka's proxy.
    pub kafka: Option<String>,
    /// The address of PostgreSQL's proxy.
    pub database: String,
    /// The folder for standard error.
    pub logs: PathBuf,
}

/// A process of the program that can be restarted on its data directory.
pub struct Service {
    name: &'static str,
    setting: Setting,
    data_dir: PathBuf,
    roles: &'static str,
    port: u16,
    starts: u32,
    child: Option<Child>,
}

impl Service {
    /// Makes a process that is not started yet.
    ///
    /// # Errors
    /// When there is no free port.
    pub fn new(
        name: &'static str,
        setting: &Setting,
        data_dir: PathBuf,
        roles: &'static str,
    ) -> Result<Self> {
        let port = super::servers::free_port()?;
        let setting = setting.clone();
        Ok(Self { name, setting, data_dir, roles, port, starts: 0, child: None })
    }

    /// The base URL of the process.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// A command of the program on this data directory, without this process's environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let setting = &self.setting;
        let mut command = Command::new(&setting.program);
        command.args(args).env_clear().stdin(Stdio::null()).kill_on_drop(true);
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command.env("DATA_DIR", &self.data_dir).env("DATABASE_URL", &setting.database);
        if let Some(kafka) = &setting.kafka {
            command.env("KAFKA_BOOTSTRAP_SERVERS", kafka);
        }
        command
    }

    /// Starts the process, with retries until it serves. Returns the token that it prints.
    ///
    /// # Errors
    /// When it does not serve within [`START`].
    pub async fn start(&mut self) -> Result<String> {
        let deadline = Instant::now() + START;
        loop {
            match self.try_start(deadline).await {
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => sleep(AGAIN).await,
                started => return started,
            }
        }
    }

    async fn try_start(&mut self, deadline: Instant) -> Result<String> {
        self.starts += 1;
        let log = self.setting.logs.join(format!("{}-{:03}.log", self.name, self.starts));
        let mut child = self
            .command(&["serve", "--roles", self.roles])
            .env("LISTEN_ADDR", format!("127.0.0.1:{}", self.port))
            .env("RATE_LIMIT_PER_SECOND", "0")
            .env("RATE_LIMIT_PER_ADDRESS", "0")
            .env("CONNECTIONS_PER_ADDRESS", "0")
            .env("REQUESTS_PER_ADDRESS", "0")
            .env("REGISTRATIONS_PER_MINUTE", "0")
            .env("TAKE_OVER", "true")
            .env("OPEN_ORDERS_PER_CUSTOMER", "0")
            .env("DECLINED_PAYMENTS_PER_HOUR", "0")
            .env("EXPIRY_GRACE_SECONDS", "5")
            .stdout(Stdio::piped())
            .stderr(File::create(log)?)
            .spawn()?;
        let stdout = child.stdout.take().context("no standard output")?;
        self.child = Some(child);
        let mut lines = BufReader::new(stdout).lines();
        let greeted = async {
            let mut token = None;
            while let Some(line) = lines.next_line().await? {
                let word = line.split(' ').find(|word| word.starts_with("eyJ"));
                token = token.or_else(|| word.map(str::to_owned));
                if line.contains("curl ") {
                    return token.context("no token was printed");
                }
            }
            bail!("{} ended before it served", self.name)
        };
        let token = timeout(deadline - Instant::now(), greeted).await??;
        // Keep reading its output, so that it never blocks on a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(token)
    }

    /// Whether the process ended by itself although it should run; returns how.
    ///
    /// # Errors
    /// When the system fails.
    pub fn has_died(&mut self) -> Result<Option<String>> {
        let Some(child) = &mut self.child else { return Ok(None) };
        let ended = child.try_wait()?;
        Ok(ended.map(|status| format!("{} (start {}) ended: {status}", self.name, self.starts)))
    }

    /// Whether the process was started and not ended by the harness.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Kills the process with SIGKILL.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the process does not run")?;
        child.kill().await?;
        Ok(())
    }

    /// Sends SIGTERM and waits for the end. A process that does not end in time is killed, and the
    /// complaint is returned.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn stop(&mut self) -> Result<Option<String>> {
        self.signal("TERM")?;
        let mut child = self.child.take().context("the process does not run")?;
        let Ok(status) = timeout(STOP, child.wait()).await else {
            child.kill().await?;
            return Ok(Some(format!("{} did not stop within {STOP:?}", self.name)));
        };
        // Exit code 1 means that not everything ended in time. A fault at that moment explains it.
        let ended = status?.code().is_some_and(|code| code <= 1);
        Ok((!ended).then(|| format!("{} did not stop cleanly", self.name)))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, name: &str) -> Result<()> {
        let pid = self.child.as_ref().and_then(Child::id).context("the process does not run")?;
        signal(pid, name)
    }
}

/// Sends a signal to a process.
///
/// # Errors
/// When the process does not exist.
pub fn signal(pid: u32, name: &str) -> Result<()> {
    let mut kill = std::process::Command::new("kill");
    let sent = kill.arg(format!("-{name}")).arg(pid.to_string()).stderr(Stdio::null()).status()?;
    ensure!(sent.success(), "kill -{name} {pid} failed");
    Ok(())
}

/// The children of a process.
///
/// # Errors
/// When the system fails.
pub fn children(parent: u32) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // The second field, in brackets, may contain blanks; the fourth is the parent.
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        if fields.split_whitespace().nth(1) == Some(&parent.to_string()) {
            found.push(pid);
        }
    }
    Ok(found)
}
