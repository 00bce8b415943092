//! The account that the private cluster runs as. `PostgreSQL` refuses to run as root.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::error::{IoContext, LocalError};

/// Tried in this order when this program runs as root.
const CANDIDATES: [&str; 2] = ["postgres", "nobody"];

/// The environment variables that a child process gets: those needed to find programs, libraries
/// and locales. The environment also holds secrets, which a child that runs as another account must
/// not see.
const PASSED_ON: [&str; 7] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "DYLD_FALLBACK_LIBRARY_PATH",
    "LOCALE_ARCHIVE",
];

/// An account of the machine, other than root.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) name: String,
}

impl Account {
    /// The account for the server when this program runs as root: the owner of an existing cluster,
    /// or else of its folder, or else an account that exists on this machine.
    pub(super) fn choose(clusters: [&Path; 2], folder: &Path) -> Result<Self, LocalError> {
        clusters
            .into_iter()
            .find_map(Self::owner)
            .or_else(|| Self::owner(folder).filter(Self::has_name))
            .or_else(|| CANDIDATES.into_iter().find_map(Self::named))
            .ok_or(LocalError::NoAccount)
    }

    /// `initdb` works only for a user that the machine has a name for.
    fn has_name(&self) -> bool {
        id(["-u", &self.uid.to_string()]).is_ok()
    }

    fn owner(path: &Path) -> Option<Self> {
        let metadata = path.metadata().ok()?;
        let uid = metadata.uid();
        (uid != 0).then(|| Self {
            uid,
            // The folder's own group may be root's.
            gid: id(["-g", &uid.to_string()]).unwrap_or(metadata.gid()),
            name: format!("the owner of {}", path.display()),
        })
    }

    fn named(name: &str) -> Option<Self> {
        let uid = id(["-u", name]).ok().filter(|uid| *uid != 0)?;
        let gid = id(["-g", name]).ok()?;
        Some(Self { uid, gid, name: name.to_owned() })
    }

    /// Whether this account can use a folder of ours. A shell tries to enter the folder, because
    /// its mode does not show access lists.
    pub(super) fn reaches(&self, folder: &Path) -> Result<bool, LocalError> {
        let mut command = command("sh", Some(self), folder);
        match command.args(["-c", ":"]).status() {
            Ok(status) => Ok(status.success()),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(false),
            Err(error) => Err(error).doing(|| format!("run a shell as {}", self.name)),
        }
    }
}

/// The effective user of this process.
pub(super) fn current_uid() -> Result<u32, LocalError> {
    id(["-u", "--"]).or_else(|_| id(["-u"]))
}

/// The standard library does not return user ids, and the system call is `unsafe`.
fn id<const N: usize>(arguments: [&str; N]) -> Result<u32, LocalError> {
    let what = || format!("ask `id {}`", arguments.join(" "));
    let output = Command::new("id").args(arguments).stdin(Stdio::null()).output().doing(what)?;
    String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .map_err(std::io::Error::other)
        .doing(what)
}

/// A command that runs one of the cluster's programs as `account` (or as this process's user) in
/// `folder`. It has a process group of its own: Ctrl-C must reach only this program, which then
/// stops the cluster in order.
pub(super) fn command(
    program: impl AsRef<OsStr>,
    account: Option<&Account>,
    folder: &Path,
) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).stdin(Stdio::null()).process_group(0).env_clear();
    for name in PASSED_ON {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    // This program parses the messages, and macOS needs a valid locale.
    command.env("LC_ALL", "C");
    if let Some(account) = account {
        command.gid(account.gid).uid(account.uid).env("HOME", folder);
    }
    command
}
