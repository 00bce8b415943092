//! The server process: reads `postmaster.pid`, checks whether the process is alive, and ends it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use super::error::{IoContext, LocalError};

/// Pause between two checks of a process or a file.
pub(super) const POLL: Duration = Duration::from_millis(20);

/// How long a fast shutdown may take; it writes a checkpoint. After that, recovery at the next
/// start is the better choice.
const FAST_PATIENCE: Duration = Duration::from_secs(30);

/// How long an immediate shutdown may take; it only ends processes. A stopped process (SIGSTOP)
/// does not react to it.
const IMMEDIATE_PATIENCE: Duration = Duration::from_secs(10);

/// How a server is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shutdown {
    /// Closes the sessions and writes a checkpoint.
    Fast,
    /// Ends the processes; the next start recovers.
    Immediate,
}

/// What a server writes about itself into its folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PidFile {
    pub(super) pid: u32,
    pub(super) port: Option<u16>,
    pub(super) status: Option<String>,
}

impl PidFile {
    /// `None` without a file, and for one that names no process, as a power cut can leave it.
    pub(super) fn read(cluster: &Path) -> Result<Option<Self>, LocalError> {
        let path = Self::path(cluster);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Self::parse(&String::from_utf8_lossy(&bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).doing(|| format!("read {}", path.display())),
        }
    }

    pub(super) fn path(cluster: &Path) -> PathBuf {
        cluster.join("postmaster.pid")
    }

    /// The lines are: process id, folder, start time, port, socket folder, address, shared memory
    /// key, status. A server writes them one after another, so that the last ones may be missing.
    fn parse(text: &str) -> Option<Self> {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let line = |index: usize| lines.get(index).filter(|line| !line.is_empty());
        // A server without a postmaster (`--single`) negates its id.
        let pid = line(0)?.parse::<i32>().ok()?.unsigned_abs();
        Some(Self {
            pid: (pid > 0).then_some(pid)?,
            port: line(3).and_then(|port| port.parse().ok()),
            status: line(7).map(|status| (*status).to_owned()),
        })
    }

    pub(super) fn ready(&self) -> bool {
        self.status.as_deref() == Some("ready")
    }

    pub(super) fn stopping(&self) -> bool {
        self.status.as_deref() == Some("stopping")
    }
}

/// Which program has a given process id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Process {
    /// The server of this cluster.
    Ours,
    /// Another program, which got the same id after a restart of the machine or the container.
    Another,
    /// No program. A dead process that nobody has waited for counts as none.
    Gone,
}

/// Checks that a process is the server of this cluster, by the `-D` in its command line. This comes
/// before every signal.
pub(super) fn identify(pid: u32, cluster: &Path) -> Process {
    match command_line(pid) {
        None => Process::Gone,
        Some(line) if line.contains(&format!(" -D {} ", cluster.display())) => Process::Ours,
        Some(_) => Process::Another,
    }
}

/// The server of this cluster, for when `postmaster.pid` does not name it: the file may have been
/// damaged or removed while it runs.
pub(super) fn find(cluster: &Path) -> Option<u32> {
    let launched = format!("postgres -D {} ", cluster.display());
    processes().into_iter().find_map(|(pid, line)| line.contains(&launched).then_some(pid))
}

/// The processes of this machine with their command lines.
fn processes() -> Vec<(u32, String)> {
    if let Ok(entries) = std::fs::read_dir("/proc")
        && Path::new("/proc/self/cmdline").exists()
    {
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        return pids.filter_map(|pid| Some((pid, command_line(pid)?))).collect();
    }
    let listed =
        Command::new("ps").args(["-axww", "-o", "pid=,args="]).stdin(Stdio::null()).output();
    let listed = listed.map(|output| output.stdout).unwrap_or_default();
    let parse = |line: &str| {
        let (pid, line) = line.trim().split_once(' ')?;
        Some((pid.parse().ok()?, format!(" {line} ")))
    };
    String::from_utf8_lossy(&listed).lines().filter_map(parse).collect()
}

/// The command line of a process, with a space around each part. A dead process that nobody has
/// waited for has none.
fn command_line(pid: u32) -> Option<String> {
    let bytes = if Path::new("/proc/self/cmdline").exists() {
        std::fs::read(format!("/proc/{pid}/cmdline")).ok()?
    } else {
        Command::new("ps")
            .args(["-ww", "-o", "args=", "-p", &pid.to_string()])
            .stdin(Stdio::null())
            .output()
            .ok()?
            .stdout
    };
    let line = String::from_utf8_lossy(&bytes).replace('\0', " ");
    let line = line.trim();
    (!line.is_empty()).then(|| format!(" {line} "))
}

/// Ends the server and waits until it is gone. If it does not end in time, a stronger signal
/// follows.
pub(super) async fn stop(pid: u32, cluster: &Path, how: Shutdown) -> Result<(), LocalError> {
    let steps =
        [("INT", FAST_PATIENCE), ("QUIT", IMMEDIATE_PATIENCE), ("KILL", IMMEDIATE_PATIENCE)];
    let first = usize::from(how == Shutdown::Immediate);
    for (signal, patience) in &steps[first..] {
        if identify(pid, cluster) != Process::Ours {
            return Ok(());
        }
        send(signal, pid).await?;
        if gone_within(pid, cluster, *patience).await {
            return Ok(());
        }
        tracing::warn!(pid, signal, "PostgreSQL did not end in time");
    }
    Err(LocalError::Unstoppable { pid })
}

async fn gone_within(pid: u32, cluster: &Path, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        if identify(pid, cluster) != Process::Ours {
            return true;
        }
        tokio::time::sleep(POLL).await;
    }
    false
}

/// Uses the `kill` built into the shell: slim images have no program of that name, and the system
/// call is `unsafe`.
async fn send(signal: &str, pid: u32) -> Result<(), LocalError> {
    // A failure means that the process has just ended. The caller checks.
    tokio::process::Command::new("sh")
        .args(["-c", r#"kill -s "$1" "$2" 2>/dev/null"#, "sh", signal])
        .arg(pid.to_string())
        .stdin(Stdio::null())
        .status()
        .await
        .doing(|| format!("send {signal} to process {pid}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_still_being_written_gives_what_it_has() {
        let whole = "42\n/data/cluster\n1700000000\n34567\n\n127.0.0.1\n   123 4\nready   \n";
        let file = PidFile::parse(whole).unwrap();
        assert_eq!((file.pid, file.port), (42, Some(34567)));
        assert!(file.ready());

        let begun = PidFile::parse("42\n/data/cluster\n1700000000\n34567\n").unwrap();
        assert!(!begun.ready());
    }

    #[test]
    fn a_damaged_file_names_no_process() {
        for text in ["", "\n", "garbage", "0", "-0", "\0\0\0\0", "42\0", "99999999999", "4 2"] {
            assert_eq!(PidFile::parse(text), None, "{text:?}");
        }
        assert_eq!(PidFile::parse("-42").unwrap().pid, 42);
    }

    #[test]
    fn a_process_of_another_program_is_told_apart() {
        let folder = Path::new("/no/such/cluster");
        assert_eq!(identify(std::process::id(), folder), Process::Another);
        // Larger than any process id that a kernel assigns.
        assert_eq!(identify(u32::MAX, folder), Process::Gone);
    }
}
