//! Starts the server process, waits until it is ready, and watches a bound server.

use std::ffi::OsString;
use std::io::{Read, Seek, SeekFrom};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::access::Access;
use super::binaries::Binaries;
use super::error::{IoContext, LocalError};
use super::postmaster::{self, POLL, PidFile, Process, Shutdown};
use super::site::Site;
use super::waiting::Waiting;
use super::{LocalOptions, account};

/// How much of the log goes into an error, in bytes.
const TAIL: u64 = 2_000;

/// Messages after which another attempt may succeed: some processes of a killed predecessor are
/// still running.
const PASSING: [&str; 2] =
    ["pre-existing shared memory block", "lock file \"postmaster.pid\" already exists"];

/// Messages after which an attempt with another port may succeed.
const PORT_TAKEN: [&str; 2] = ["could not bind", "could not create any TCP/IP sockets"];

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The server ignores a `postmaster.pid` with the process id in this variable of its environment,
/// because it is that of an ancestor; `pg_ctl` sets it so. Otherwise it takes any process with the
/// id for a running server, even a dead one that nobody has waited for. Removing the file instead
/// would hide from it which shared memory the processes of a killed predecessor still use.
const NO_SERVER: &str = "PG_GRANDPARENT_PID";

/// A server that answers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Running {
    pub(super) pid: u32,
    pub(super) port: u16,
}

/// Starts the server and waits until it answers, on this port or else on one that is free.
pub(super) async fn launch(
    site: &Site,
    binaries: &Binaries,
    access: &Access,
    options: &LocalOptions,
    port: Option<u16>,
) -> Result<Running, LocalError> {
    let mut waiting = Waiting::for_at_most(options.start_timeout);
    let mut pause = POLL;
    loop {
        match launch_once(site, binaries, access, port, &mut waiting).await {
            Err(LocalError::Exited { log, .. }) if may_pass(&log, port) && !waiting.is_over() => {
                waiting.report("it does not start beside what runs of its predecessor");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            result => return result,
        }
    }
}

fn may_pass(log: &str, port: Option<u16>) -> bool {
    let told = |reasons: &[&str]| reasons.iter().any(|reason| log.contains(reason));
    told(&PASSING) || port.is_none() && told(&PORT_TAKEN)
}

async fn launch_once(
    site: &Site,
    binaries: &Binaries,
    access: &Access,
    port: Option<u16>,
    waiting: &mut Waiting,
) -> Result<Running, LocalError> {
    let cluster = site.cluster();
    let port = port.map_or_else(free_port, Ok)?;
    let log = site.open_log()?;
    let log_start = log.metadata().map_or(0, |log| log.len());
    let errors = log.try_clone().doing(|| "share the log file")?;
    let mut settings = OsString::from("config_file=");
    settings.push(site.settings());
    let mut command = account::command(binaries.postgres(), site.account.as_ref(), &cluster);
    if let Some(file) = PidFile::read(&cluster)?
        && postmaster::identify(file.pid, &cluster) != Process::Ours
    {
        command.env(NO_SERVER, file.pid.to_string());
    }
    let child = command
        .arg("-D")
        .arg(&cluster)
        .arg("-c")
        .arg(settings)
        .args(["-p", &port.to_string()])
        .stdout(log)
        .stderr(errors)
        .spawn()
        .doing(|| format!("run {}", binaries.postgres().display()))?;
    let pid = child.id();
    let ended = wait_in_background(child);
    let mut unready = Unready { pid: Some(pid), cluster: &cluster };

    let answered = async {
        while !waiting.is_over() {
            if let Some(status) = ended.get() {
                let log = tail(&site.log(), log_start);
                let status = *status;
                return Err(LocalError::Exited { status, log });
            }
            let file = PidFile::read(&cluster)?;
            if file.is_some_and(|file| file.pid == pid && file.ready())
                && access.answers(port, &cluster).await?
            {
                return Ok(Running { pid, port });
            }
            waiting.report("it starts; after a crash it recovers first");
            tokio::time::sleep(POLL).await;
        }
        Err(LocalError::NotReady { seconds: waiting.most.as_secs(), log: site.log() })
    };
    let answered = answered.await;
    if answered.is_err() {
        postmaster::stop(pid, &cluster, Shutdown::Immediate).await?;
    }
    unready.pid = None;
    answered
}

/// Ends a server whose start is given up halfway: nobody would know of it.
struct Unready<'a> {
    pid: Option<u32>,
    cluster: &'a Path,
}

impl Drop for Unready<'_> {
    fn drop(&mut self) {
        if let Some(pid) = self.pid.take()
            && postmaster::identify(pid, self.cluster) == Process::Ours
            && let Some(pid) = Pid::from_raw(pid.cast_signed())
        {
            // A failure means that it has just ended.
            let _ = kill_process(pid, Signal::QUIT);
        }
    }
}

/// A high port that is free now. Another program may take it before the server does, see
/// [`PASSING`].
fn free_port() -> Result<u16, LocalError> {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .doing(|| "find a free port")
}

/// Waits for the child in a thread. Without that, a dead child stays a zombie, whose id looks alive
/// to the next server. A task would end with its runtime, so a thread is used.
fn wait_in_background(mut child: Child) -> Arc<OnceLock<ExitStatus>> {
    let ended = Arc::new(OnceLock::new());
    let told = Arc::clone(&ended);
    std::thread::spawn(move || {
        if let Ok(status) = child.wait() {
            // Nothing else sets this cell.
            let _ = told.set(status);
        }
    });
    ended
}

/// The end of the part of a log that was written after `from`.
fn tail(log: &Path, from: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(from.max(length.saturating_sub(TAIL))))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

/// Ends a server when its owner ends, even if the owner is killed: a shell waits for the end of a
/// pipe that only the owner holds open.
#[derive(Debug)]
pub(super) struct Watch {
    shell: Child,
    pipe: Option<ChildStdin>,
}

/// Arguments: process id, folder of the cluster, folders to remove.
const WATCH: &str = r#"
read -r _
[ "$(head -n 1 "$2/postmaster.pid" 2>/dev/null)" = "$1" ] && kill -s QUIT "$1"
tries=0
while kill -0 "$1" 2>/dev/null && [ "$tries" -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
shift 2
[ "$#" -eq 0 ] || rm -rf "$@"
"#;

impl Watch {
    /// Runs as the user of this program. If that is root, it may end the server and remove the
    /// server's files, although another user owns them.
    pub(super) fn begin(pid: u32, cluster: &Path, remove: &[PathBuf]) -> Result<Self, LocalError> {
        let mut shell = account::command("sh", None, Path::new("/"))
            .args(["-c", WATCH, "sh", &pid.to_string()])
            .arg(cluster)
            .args(remove)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .doing(|| "run a shell")?;
        let pipe = shell.stdin.take();
        Ok(Self { shell, pipe })
    }

    /// Ends the watch and leaves the server and the folders alone.
    pub(super) fn cancel(mut self) {
        // The shell has nothing to do without the signal either: the server is gone.
        let _ = self.shell.kill();
    }
}

impl Drop for Watch {
    /// Blocks until the server has ended: the script waits 10 s at most.
    fn drop(&mut self) {
        drop(self.pipe.take());
        // If the shell cannot be waited for, nothing more can be done.
        let _ = self.shell.wait();
    }
}
