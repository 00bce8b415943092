//! The data directory. One process at a time owns it, and tells other processes its address.

use serde::{Deserialize, Serialize};
use std::{
    fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

/// A process that only checks for an owner has the lock for a moment. A start tries so often, so
/// that it does not fail because of that.
const LOCK_ATTEMPTS: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The mode of a new data directory.
const PRIVATE: u32 = 0o700;
/// The bits by which other users can see what is in a directory, or change it.
const LISTED_OR_WRITTEN: u32 = 0o066;

/// The owned data directory. The lock is released when this is dropped and when the process ends.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// What the owner tells other processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// The address that it serves HTTP on.
    pub address: SocketAddr,
    /// Its process id.
    pub pid: u32,
}

impl Announcement {
    /// The URL to reach it at from this machine.
    pub fn url(&self) -> String {
        url_of(self.address)
    }
}

/// The URL to reach a server at that listens on `address` of this machine.
pub fn url_of(mut address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("http://{address}")
}

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process owns it.
    #[error("the data directory {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The system refused an operation.
    #[error("the data directory {} cannot be used", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

impl DataDir {
    /// Takes ownership of `path`, and creates it if it does not exist.
    ///
    /// # Errors
    /// [`DataDirError::InUse`] while another process owns it.
    pub fn lock(path: &Path) -> Result<Self, DataDirError> {
        let failed = |source| DataDirError::Io { path: path.to_owned(), source };
        make_private(path).map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        let lock = open_lock(&path).map_err(failed)?;
        for attempt in 1.. {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if attempt < LOCK_ATTEMPTS => {
                    std::thread::sleep(LOCK_PAUSE);
                }
                Err(TryLockError::WouldBlock) => return Err(DataDirError::InUse(path)),
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
        }
        Ok(Self { path, _lock: lock })
    }

    /// The absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells other processes the address of this one, until [`withdraw`](Self::withdraw).
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn announce(&self, address: SocketAddr) -> Result<(), DataDirError> {
        let failed = |source| DataDirError::Io { path: self.path.clone(), source };
        let announcement = Announcement { address, pid: std::process::id() };
        let text = serde_json::to_vec(&announcement).map_err(|error| failed(error.into()))?;
        // A rename, so that another process never reads half a file.
        let partial = self.path.join("server.json.new");
        std::fs::write(&partial, text).map_err(failed)?;
        std::fs::rename(partial, announcement_path(&self.path)).map_err(failed)
    }

    /// Takes the announcement back.
    pub fn withdraw(&self) {
        // A file that stays behind does no harm: it counts only while the lock is taken.
        let _ = std::fs::remove_file(announcement_path(&self.path));
    }

    /// Whether a process owns `path` now.
    ///
    /// # Errors
    /// If the lock cannot be checked.
    pub fn is_owned(path: &Path) -> Result<bool, DataDirError> {
        let failed = |source| DataDirError::Io { path: path.to_owned(), source };
        let lock = match File::open(path.join("lock")) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(failed(error)),
        };
        // A shared lock, so that two processes that only check do not disturb each other.
        match lock.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// What the owner of `path` tells; `None` without an owner, or while it does not serve.
    ///
    /// # Errors
    /// If the lock cannot be checked.
    pub fn announced(path: &Path) -> Result<Option<Announcement>, DataDirError> {
        if !Self::is_owned(path)? {
            return Ok(None);
        }
        let text = std::fs::read(announcement_path(path)).unwrap_or_default();
        Ok(serde_json::from_slice(&text).ok())
    }
}

/// Makes the folder for its owner only. One that is there keeps its mode: somebody may have chosen
/// it.
fn make_private(path: &Path) -> io::Result<()> {
    match std::fs::metadata(path) {
        Ok(found) if found.permissions().mode() & LISTED_OR_WRITTEN != 0 => {
            tracing::warn!(
                "other users of this machine can look into the data directory {}: chmod 700 it",
                path.display()
            );
            Ok(())
        }
        Ok(_) => Ok(()),
        Err(_) => {
            DirBuilder::new().recursive(true).mode(PRIVATE).create(path)?;
            std::fs::set_permissions(path, Permissions::from_mode(PRIVATE))
        }
    }
}

/// Lets other users pass through the directory, without seeing what is in it. The private PostgreSQL
/// of a program that root runs needs that: its server runs as another user.
///
/// # Errors
/// If the mode cannot be changed.
pub fn let_pass(path: &Path) -> io::Result<()> {
    let mode = std::fs::metadata(path)?.permissions().mode();
    if rustix::process::geteuid().is_root() && mode & 0o7777 == PRIVATE {
        std::fs::set_permissions(path, Permissions::from_mode(PRIVATE | 0o011))?;
    }
    Ok(())
}

/// Opens the lock so that no other user can: whoever opens it can also take it.
fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let lock = options.create(true).truncate(false).write(true).mode(0o600);
    let lock = lock.open(path.join("lock"))?;
    lock.set_permissions(Permissions::from_mode(0o600))?;
    Ok(lock)
}

fn announcement_path(path: &Path) -> PathBuf {
    path.join("server.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_all_addresses_is_reached_on_loopback() {
        assert_eq!(url_of("0.0.0.0:80".parse().unwrap()), "http://127.0.0.1:80");
        assert_eq!(url_of("[::]:80".parse().unwrap()), "http://[::1]:80");
        assert_eq!(url_of("192.0.2.1:80".parse().unwrap()), "http://192.0.2.1:80");
    }

    #[test]
    fn what_is_made_is_for_its_owner_only() {
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/data");
        drop(DataDir::lock(&path).unwrap());
        assert_eq!((mode(&path), mode(&path.join("lock"))), (0o700, 0o600));
        // A lock of an earlier version could be taken by anybody.
        let open = |path: &Path, mode| {
            std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        };
        open(&path.join("lock"), 0o644);
        open(&path, 0o755);
        drop(DataDir::lock(&path).unwrap());
        assert_eq!((mode(&path), mode(&path.join("lock"))), (0o755, 0o600));
        open(&path, 0o700);
        let_pass(&path).unwrap();
        let passed = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
        assert_eq!(mode(&path), passed);
    }

    #[test]
    fn a_directory_has_one_owner_that_tells_its_address() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        assert_eq!(DataDir::announced(&path).unwrap(), None);

        let owner = DataDir::lock(&path).unwrap();
        assert!(matches!(DataDir::lock(&path), Err(DataDirError::InUse(_))));
        assert!(DataDir::is_owned(&path).unwrap());
        assert_eq!(DataDir::announced(&path).unwrap(), None);
        let address = SocketAddr::from(([127, 0, 0, 1], 4711));
        owner.announce(address).unwrap();
        let announced = DataDir::announced(&path).unwrap().unwrap();
        assert_eq!(announced.url(), "http://127.0.0.1:4711");

        drop(owner);
        assert_eq!(DataDir::announced(&path).unwrap(), None, "a stale file does not count");
        DataDir::lock(&path).unwrap();
    }
}
