//! The program, as a process of its own.

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

/// A start may be held up by whatever is away at that moment.
const START: Duration = Duration::from_mins(3);

/// Between two tries to start.
const AGAIN: Duration = Duration::from_millis(500);

/// A soft stop takes at most 25 s.
const STOP: Duration = Duration::from_secs(40);

/// What all processes of a run share.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The program.
    pub program: PathBuf,
    /// Kafka, through the proxy.
    pub kafka: Option<String>,
    /// PostgreSQL, through the proxy.
    pub database: String,
    /// Where standard error goes.
    pub logs: PathBuf,
}

/// A process of the program, started again and again on one data directory.
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
    /// A process that does not run yet.
    ///
    /// # Errors
    /// When there is no port for it.
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

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Where its files are.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// A command of the program on this data directory, with nothing of this process's environment.
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

    /// Starts it, again and again until it serves; gives the token that it prints.
    ///
    /// # Errors
    /// When it does not within [`START`].
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
        // Read on for as long as it lives, so that it never waits for a reader.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(token)
    }

    /// Whether it should run and does not: it ended by itself.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn has_died(&mut self) -> Result<Option<String>> {
        let Some(child) = &mut self.child else { return Ok(None) };
        let ended = child.try_wait()?;
        Ok(ended.map(|status| format!("{} (start {}) ended: {status}", self.name, self.starts)))
    }

    /// Whether it was started and not ended.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// SIGKILL, which leaves no time for anything.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("does not run")?;
        child.kill().await?;
        Ok(())
    }

    /// SIGTERM, and waits for the end; what does not end by itself is killed, and that is told.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn stop(&mut self) -> Result<Option<String>> {
        self.signal("TERM")?;
        let mut child = self.child.take().context("does not run")?;
        let Ok(status) = timeout(STOP, child.wait()).await else {
            child.kill().await?;
            return Ok(Some(format!("{} did not stop within {STOP:?}", self.name)));
        };
        // 1 says that not everything ended in time, which a fault at that moment explains.
        let ended = status?.code().is_some_and(|code| code <= 1);
        Ok((!ended).then(|| format!("{} did not stop cleanly", self.name)))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, name: &str) -> Result<()> {
        let pid = self.child.as_ref().and_then(Child::id).context("does not run")?;
        signal(pid, name)
    }
}

/// Sends a signal to a process.
///
/// # Errors
/// When it is gone.
pub fn signal(pid: u32, name: &str) -> Result<()> {
    let mut kill = std::process::Command::new("kill");
    let sent = kill.arg(format!("-{name}")).arg(pid.to_string()).stderr(Stdio::null()).status()?;
    ensure!(sent.success(), "kill -{name} {pid} failed");
    Ok(())
}

/// The children of a process.
///
/// # Errors
/// When the system does not tell.
pub fn children(parent: u32) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // The second field, in brackets, may hold blanks; the fourth is the parent.
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        if fields.split_whitespace().nth(1) == Some(&parent.to_string()) {
            found.push(pid);
        }
    }
    Ok(found)
}
