//! The program in its own process, with a data directory of its own.

use anyhow::{Context, Result, ensure};
use std::{
    fs::Permissions,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// How long a start or a stop may take.
const PATIENCE: Duration = Duration::from_mins(3);

/// Clock ticks per second in `/proc` on Linux.
const TICKS: f64 = 100.0;

/// A process of the program, with the embedded log and a private PostgreSQL.
pub struct Program {
    /// The address on which it listens.
    pub address: SocketAddr,
    /// A token of role `staff`.
    pub token: String,
    file: PathBuf,
    child: Child,
    dir: TempDir,
}

impl Program {
    /// Starts the program; by default `orderlog` in the target folder of this harness. It gets these
    /// settings and nothing else of this process's environment.
    ///
    /// # Errors
    /// When it does not start in time.
    pub async fn start(program: Option<&Path>, settings: &[(&str, &str)]) -> Result<Self> {
        let file = match program {
            Some(file) => file.to_owned(),
            None => in_target_folder()?,
        };
        // The user account of a private PostgreSQL must be able to enter it.
        let open = Permissions::from_mode(0o755);
        let dir = tempfile::Builder::new().prefix("orderlog-bench-").permissions(open).tempdir()?;
        let mut command = command(&file, dir.path());
        command.env("LISTEN_ADDR", "127.0.0.1:0").env("RUST_LOG", "error");
        command.envs(settings.iter().copied()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| file.display().to_string())?;
        let output = child.stdout.take().context("the program has no standard output")?;
        let mut lines = BufReader::new(output).lines();
        let (mut address, mut token) = (None, None);
        while token.is_none() {
            let line = timeout(PATIENCE, lines.next_line()).await??.context("the program ended")?;
            let word = |start: &str| line.split(' ').find_map(|word| word.strip_prefix(start));
            address = address.or_else(|| word("http://").map(str::to_owned));
            token = word("eyJ").map(|rest| format!("eyJ{rest}"));
        }
        // Keep reading its output, so that it never blocks on a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let address = address.context("the program printed no address")?.parse()?;
        Ok(Self { address, token: token.context("no token")?, file, child, dir })
    }

    /// Makes a token with the program's own key.
    ///
    /// # Errors
    /// When the program makes none.
    pub async fn sign(&self, role: &str, subject: &str) -> Result<String> {
        let args = ["token", "--role", role, "--sub", subject];
        let output = command(&self.file, self.dir.path()).args(args).output().await?;
        ensure!(output.status.success(), "no token: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// How the program ended, if it has.
    ///
    /// # Errors
    /// When the system fails.
    pub fn ended(&mut self) -> Result<Option<String>> {
        Ok(self.child.try_wait()?.map(|status| status.to_string()))
    }

    /// Stops the program with SIGTERM, so that its PostgreSQL ends too.
    ///
    /// # Errors
    /// When it has ended already, or does not end in time.
    pub async fn stop(&mut self) -> Result<()> {
        let id = self.child.id().context("the program has ended")?;
        Command::new("kill").arg("-TERM").arg(id.to_string()).status().await?;
        timeout(PATIENCE, self.child.wait()).await??;
        Ok(())
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        data_dir(self.dir.path())
    }

    /// Resident memory, in KiB.
    ///
    /// # Errors
    /// When the program has ended.
    pub fn memory(&self) -> Result<f64> {
        let status = self.proc("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        Ok(number.context("no VmRSS")?.parse()?)
    }

    /// Processor time so far, in seconds.
    ///
    /// # Errors
    /// When the program has ended.
    pub fn cpu(&self) -> Result<f64> {
        let stat = self.proc("stat")?;
        let fields = stat.rsplit_once(')').context("no stat")?.1.split_whitespace();
        let times: Vec<f64> = fields.skip(11).take(2).filter_map(|it| it.parse().ok()).collect();
        Ok(times.iter().sum::<f64>() / TICKS)
    }

    fn proc(&self, file: &str) -> Result<String> {
        let id = self.child.id().context("the program has ended")?;
        Ok(std::fs::read_to_string(format!("/proc/{id}/{file}"))?)
    }
}

fn in_target_folder() -> Result<PathBuf> {
    let harness = std::env::current_exe()?;
    let target = harness.parent().and_then(Path::parent);
    Ok(target.context("this harness is not in a target folder")?.join("orderlog"))
}

fn data_dir(dir: &Path) -> PathBuf {
    dir.join("data")
}

/// A command of the program on this directory.
fn command(file: &Path, dir: &Path) -> Command {
    let mut command = Command::new(file);
    command.env_clear().env("DATA_DIR", data_dir(dir)).stdin(Stdio::null()).kill_on_drop(true);
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}
