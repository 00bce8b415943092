//! The folders of the private cluster.
//!
//! `<data-dir>/postgres/` contains the password, the settings, the log and, in `cluster/`, the
//! server's own files. Only `cluster/` belongs to the account that the server runs as. If that
//! account also owned the folder around it, it could place links there that make this program, as
//! root, write elsewhere.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::LocalOptions;
use super::account::{Account, current_uid};
use super::error::{IoContext, LocalError};

/// A log longer than this, in bytes, is moved aside at a start.
const LONG_LOG: u64 = 10_000_000;

/// The folders of one cluster, and the account that its server runs as (`None`: as the user of this
/// program).
#[derive(Debug)]
pub(super) struct Site {
    /// In the data directory. It contains the password, so that a new data directory is never used
    /// with the database of its predecessor.
    keep: PathBuf,
    /// Contains the cluster. It is the same folder, or the fallback if the account cannot reach
    /// that one.
    pub(super) home: PathBuf,
    pub(super) account: Option<Account>,
}

impl Site {
    /// Makes the folders. Logs it when the cluster cannot be in the data directory.
    pub(super) fn prepare(options: &LocalOptions) -> Result<Self, LocalError> {
        let [keep, fallback] = places(options)?;
        let uid = current_uid()?;
        if uid != 0 {
            check_owner(&keep, uid)?;
            check_owner(&keep.join("cluster"), uid)?;
            make_folder(&keep, 0o700)?;
            return Ok(Self { home: keep.clone(), keep, account: None });
        }
        let [here, there] = [&keep, &fallback].map(|home| home.join("cluster"));
        let account = Account::choose([&here, &there], &keep)?;
        make_folder(&keep, 0o711)?;
        let home = if account.reaches(&keep)? {
            keep.clone()
        } else {
            fall_back(&account, &keep, fallback)?
        };
        Ok(Self { keep, home, account: Some(account) })
    }

    /// The places where the cluster of this data directory can be. Makes nothing.
    pub(super) fn existing(options: &LocalOptions) -> Result<Vec<Self>, LocalError> {
        if !options.data_dir.exists() {
            return Ok(Vec::new());
        }
        let [keep, fallback] = places(options)?;
        let site = |home: PathBuf| Self { account: None, keep: keep.clone(), home };
        Ok(vec![site(keep.clone()), site(fallback)])
    }

    /// The server's own folder.
    pub(super) fn cluster(&self) -> PathBuf {
        self.home.join("cluster")
    }

    /// Where a new cluster is made. It is renamed when it is complete.
    pub(super) fn unfinished(&self) -> PathBuf {
        self.home.join("cluster.new")
    }

    /// The server's settings, written at each start.
    pub(super) fn settings(&self) -> PathBuf {
        self.home.join("postgresql.conf")
    }

    /// The server's log.
    pub(super) fn log(&self) -> PathBuf {
        self.home.join("postgres.log")
    }

    /// Opens the log for appending, after moving a long one aside.
    pub(super) fn open_log(&self) -> Result<File, LocalError> {
        let path = self.log();
        if path.metadata().is_ok_and(|log| log.len() > LONG_LOG) {
            fs::rename(&path, self.home.join("postgres.log.1"))
                .doing(|| format!("rename {}", path.display()))?;
        }
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600);
        let log = options.open(&path).doing(|| format!("open {}", path.display()))?;
        self.settle(&path)?;
        Ok(log)
    }

    /// Major version of the `PostgreSQL` that made the cluster, if there is one.
    pub(super) fn cluster_major(&self) -> Option<u32> {
        let version = fs::read_to_string(self.cluster().join("PG_VERSION")).ok()?;
        version.trim().parse().ok()
    }

    /// The password of this data directory's cluster, if it has one. A file without a word in it,
    /// as a power cut can leave it, has none.
    pub(super) fn password(&self) -> Result<Option<String>, LocalError> {
        let path = self.keep.join("password");
        match fs::read(&path) {
            Ok(bytes) => {
                let word = bytes.trim_ascii();
                let legible = !word.is_empty() && word.iter().all(u8::is_ascii_graphic);
                Ok(legible.then(|| String::from_utf8_lossy(word).into_owned()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).doing(|| format!("read {}", path.display())),
        }
    }

    /// Makes a password, and saves it before a cluster uses it.
    pub(super) fn make_password(&self) -> Result<String, LocalError> {
        let password = random_hex()?;
        let draft = self.write_secret("password.new", &password)?;
        fs::rename(&draft, self.keep.join("password"))
            .doing(|| format!("rename {}", draft.display()))?;
        Ok(password)
    }

    /// Writes a file that only this user can read, or the account that it is then given to.
    pub(super) fn write_secret(&self, name: &str, text: &str) -> Result<PathBuf, LocalError> {
        let folder = if name.starts_with("password") { &self.keep } else { &self.home };
        let path = folder.join(name);
        self.write(&path, text, 0o600)?;
        Ok(path)
    }

    /// Writes a new file; an existing one is removed first.
    pub(super) fn write(&self, path: &Path, text: &str, mode: u32) -> Result<(), LocalError> {
        remove_if_there(path)?;
        let mut options = OpenOptions::new();
        options
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                // The process's umask may have removed bits of the mode.
                file.set_permissions(Permissions::from_mode(mode))?;
                file.sync_all()
            })
            .doing(|| format!("write {}", path.display()))?;
        self.settle(path)
    }

    /// Gives a file that this program made as root to the owner of its folder, because that user
    /// may run the next start.
    fn settle(&self, path: &Path) -> Result<(), LocalError> {
        let Some(folder) = path.parent().filter(|_| self.account.is_some()) else {
            return Ok(());
        };
        folder
            .metadata()
            .and_then(|owner| std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid())))
            .doing(|| format!("set the owner of {}", path.display()))
    }

    /// Gives a file or folder to the account that the server runs as.
    pub(super) fn give(&self, path: &Path) -> Result<(), LocalError> {
        let Some(account) = &self.account else {
            return Ok(());
        };
        std::os::unix::fs::chown(path, Some(account.uid), Some(account.gid))
            .doing(|| format!("give {} to {}", path.display(), account.name))
    }

    /// Moves a cluster that cannot be used out of the way. Nothing is lost, because the read models
    /// are rebuilt from the log.
    pub(super) fn set_aside(&self, reason: &str) -> Result<(), LocalError> {
        let cluster = self.cluster();
        if !cluster.exists() {
            return Ok(());
        }
        let aside = self.home.join("cluster.old");
        if aside.exists() {
            fs::remove_dir_all(&aside).doing(|| format!("remove {}", aside.display()))?;
        }
        fs::rename(&cluster, &aside).doing(|| format!("rename {}", cluster.display()))?;
        tracing::warn!(
            reason,
            aside = %aside.display(),
            "the private database cannot be used and was moved aside; the read models will be rebuilt"
        );
        Ok(())
    }
}

/// The cluster's place in the data directory, and the fallback outside it.
fn places(options: &LocalOptions) -> Result<[PathBuf; 2], LocalError> {
    let data_dir = &options.data_dir;
    fs::create_dir_all(data_dir).doing(|| format!("make {}", data_dir.display()))?;
    let data_dir = data_dir.canonicalize().doing(|| format!("resolve {}", data_dir.display()))?;
    let hash = Uuid::new_v5(&Uuid::NAMESPACE_URL, data_dir.as_os_str().as_encoded_bytes());
    let fallback = options.fallback_dir.join(hash.simple().to_string());
    Ok([data_dir.join("postgres"), fallback])
}

fn fall_back(account: &Account, keep: &Path, fallback: PathBuf) -> Result<PathBuf, LocalError> {
    match fallback.parent() {
        Some(parent) if !parent.exists() => make_folder(parent, 0o711)?,
        _ => {}
    }
    make_folder(&fallback, 0o711)?;
    if !account.reaches(&fallback)? {
        return Err(LocalError::Unreachable {
            account: account.name.clone(),
            folder: keep.to_owned(),
            fallback,
        });
    }
    tracing::info!(
        user = account.name,
        closed = %keep.display(),
        folder = %fallback.display(),
        "PostgreSQL's user cannot reach the data directory; its files are in another folder"
    );
    Ok(fallback)
}

/// Makes a folder and its parents. The mode is set separately, because the process's umask would
/// reduce it.
pub(super) fn make_folder(path: &Path, mode: u32) -> Result<(), LocalError> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
        .doing(|| format!("make {}", path.display()))
}

/// 256 random bits.
pub(super) fn random_hex() -> Result<String, LocalError> {
    let mut halves = [[0; 16]; 2];
    File::open("/dev/urandom")
        .and_then(|mut source| halves.iter_mut().try_for_each(|half| source.read_exact(half)))
        .doing(|| "read random bytes")?;
    let [high, low] = halves.map(u128::from_ne_bytes);
    Ok(format!("{high:032x}{low:032x}"))
}

fn check_owner(folder: &Path, uid: u32) -> Result<(), LocalError> {
    match folder.metadata() {
        Ok(metadata) if metadata.uid() != uid => {
            Err(LocalError::WrongOwner { folder: folder.to_owned(), owner: metadata.uid(), uid })
        }
        _ => Ok(()),
    }
}

pub(super) fn remove_if_there(path: &Path) -> Result<(), LocalError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).doing(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
