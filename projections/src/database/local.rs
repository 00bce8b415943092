//! The private `PostgreSQL` cluster that the program starts itself when no `DATABASE_URL` is set.
//!
//! It holds read models only, which can be rebuilt. A cluster that cannot be used (made by another
//! version, password lost) is moved aside and replaced by a new one.
//!
//! - It listens on loopback, on a port chosen at each start; the password is in the data directory.
//! - If the program is killed, the server keeps running. The next start adopts it, or ends it if it
//!   does not answer.
//! - If the server ends by itself, a [`SupervisedPostgres`] starts it again on the same port.
//! - If the program runs as root, the server runs as another user, because it refuses to run as
//!   root.

#![expect(
    clippy::disallowed_methods,
    reason = "a cluster is a process of this machine: its waits and its PATH are real"
)]

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;

mod access;
mod account;
mod binaries;
mod cluster;
mod error;
mod fetch;
mod postmaster;
mod server;
mod site;
mod supervisor;
mod waiting;

pub use error::LocalError;
pub use supervisor::SupervisedPostgres;

use access::Access;
use binaries::Binaries;
use error::IoContext;
use postmaster::{POLL, PidFile, Process, Shutdown};
use server::{Running, Watch};
use site::Site;
use waiting::Waiting;

/// A server that reports that it is ready but does not answer for this long is ended.
const ADOPT_PATIENCE: Duration = Duration::from_secs(10);

/// How long the server lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Until [`LocalPostgres::stop`]. The server survives a killed program, and the next start
    /// adopts it.
    UntilStopped,
    /// Until the handle is dropped or this process ends in any way. For tests. Dropping the handle
    /// blocks.
    Bound,
}

/// Where and how the private cluster runs.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// The program's data directory. The cluster is in its folder `postgres/`.
    pub data_dir: PathBuf,
    /// The folder of the `PostgreSQL` programs; `None` searches the machine.
    pub bin_dir: Option<PathBuf>,
    /// The folder for the cluster if this program runs as root and the server's user cannot reach
    /// the data directory.
    pub fallback_dir: PathBuf,
    /// How long the server lives.
    pub lifetime: Lifetime,
    /// Whether committed data survives a crash of the machine. Turning it off makes tests faster.
    pub durable: bool,
    /// How long the server may take to answer, including recovery after a crash.
    pub start_timeout: Duration,
}

impl LocalOptions {
    /// The options that the program uses.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            bin_dir: None,
            fallback_dir: PathBuf::from("/var/lib/orderlog"),
            lifetime: Lifetime::UntilStopped,
            durable: true,
            start_timeout: Duration::from_mins(2),
        }
    }

    /// Options for tests: bound to the handle and the process, and not durable.
    pub fn for_tests(data_dir: impl Into<PathBuf>) -> Self {
        Self { lifetime: Lifetime::Bound, durable: false, ..Self::new(data_dir) }
    }
}

/// A running private cluster.
///
/// Dropping it does nothing, unless its lifetime is [`Lifetime::Bound`].
pub struct LocalPostgres {
    running: Running,
    access: Access,
    site: Site,
    options: LocalOptions,
    adopted: bool,
    owned: bool,
    /// Ends a bound server on drop.
    watch: Option<Watch>,
    /// What the watch removes.
    remove: Vec<PathBuf>,
}

impl LocalPostgres {
    /// Starts the cluster of a data directory, or adopts one that is running. Makes the cluster if
    /// there is none. The caller holds the lock of the data directory: two starts at the same time
    /// are not safe.
    pub async fn start(options: LocalOptions) -> Result<Self, LocalError> {
        Self::start_watched(&options, Vec::new()).await
    }

    /// A cluster in a temporary folder, which is removed when the handle is dropped or the process
    /// ends. For tests, which share it through [`LocalPostgres::create_database`].
    pub async fn throwaway() -> Result<Self, LocalError> {
        let name = format!("orderlog-{}", &site::random_hex()?[..16]);
        let folder = std::env::temp_dir().join(name);
        site::make_folder(&folder, 0o711)?;
        let options = LocalOptions::for_tests(&folder);
        let started = Self::start_watched(&options, vec![folder.clone()]).await;
        if started.is_err() {
            std::fs::remove_dir_all(&folder).doing(|| format!("remove {}", folder.display()))?;
        }
        started
    }

    async fn start_watched(
        options: &LocalOptions,
        mut remove: Vec<PathBuf>,
    ) -> Result<Self, LocalError> {
        let site = Site::prepare(options)?;
        let (access, running, adopted) = run(&site, options).await?;
        if !remove.is_empty() {
            remove.push(site.home.clone());
        }
        let watch = (options.lifetime == Lifetime::Bound)
            .then(|| Watch::begin(running.pid, &site.cluster(), &remove))
            .transpose()?;
        access.ensure_database(running.port).await?;
        tracing::info!(
            port = running.port,
            pid = running.pid,
            adopted,
            folder = %site.home.display(),
            "the private database is ready"
        );
        let options = options.clone();
        Ok(Self { running, access, site, options, adopted, owned: true, watch, remove })
    }

    /// Connects to the running cluster of a data directory, if there is one, without owning it:
    /// stopping or dropping the result leaves the server running. Makes and changes nothing.
    pub async fn attach(data_dir: impl AsRef<Path>) -> Result<Option<Self>, LocalError> {
        Self::attach_with(&LocalOptions::new(data_dir.as_ref())).await
    }

    /// Like [`LocalPostgres::attach`], with other options than the defaults.
    pub async fn attach_with(options: &LocalOptions) -> Result<Option<Self>, LocalError> {
        for site in Site::existing(options)? {
            let cluster = site.cluster();
            let Some(password) = site.password()? else {
                return Ok(None);
            };
            let Some(file) = PidFile::read(&cluster)? else {
                continue;
            };
            let access = Access::new(password);
            if let Some(running) = answering(&file, &cluster, &access).await? {
                return Ok(Some(Self {
                    running,
                    access,
                    site,
                    options: options.clone(),
                    adopted: true,
                    owned: false,
                    watch: None,
                    remove: Vec::new(),
                }));
            }
        }
        Ok(None)
    }

    /// Connection options for the program's database.
    pub fn connect_options(&self) -> PgConnectOptions {
        self.access.options(self.running.port, cluster::DATABASE)
    }

    /// The same as a URL, for other programs. It contains the password.
    pub fn url(&self) -> String {
        self.access.url(self.running.port)
    }

    /// Makes another, empty database in this cluster. The name may have lower-case letters, digits
    /// and underscores.
    pub async fn create_database(&self, name: &str) -> Result<PgConnectOptions, LocalError> {
        self.access.create_plain(self.running.port, name).await?;
        Ok(self.access.options(self.running.port, name))
    }

    /// Whether the server was running before this start.
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// The server's process id.
    pub fn process_id(&self) -> u32 {
        self.running.pid
    }

    /// The folder with the cluster, its settings and its log.
    pub fn home(&self) -> &Path {
        &self.site.home
    }

    /// Starts the server again when it ends by itself, from now on.
    pub fn supervise(self) -> SupervisedPostgres {
        SupervisedPostgres::begin(self)
    }

    /// Stops the server. It closes its sessions and writes a checkpoint. If it does not end within
    /// 30 s its processes are ended, and the next start recovers. An attached server is left
    /// running.
    pub async fn stop(self) -> Result<(), LocalError> {
        if !self.owned {
            return Ok(());
        }
        postmaster::stop(self.running.pid, &self.site.cluster(), Shutdown::Fast).await?;
        // One that was just being started again.
        match postmaster::find(&self.site.cluster()) {
            Some(pid) => postmaster::stop(pid, &self.site.cluster(), Shutdown::Immediate).await,
            None => Ok(()),
        }
    }
}

impl fmt::Debug for LocalPostgres {
    /// Leaves out the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalPostgres")
            .field("running", &self.running)
            .field("home", &self.site.home)
            .field("adopted", &self.adopted)
            .field("owned", &self.owned)
            .field("bound", &self.watch.is_some())
            .finish_non_exhaustive()
    }
}

/// Adopts or starts the server, and tells whether it was adopted. A cluster that does not accept the
/// password in the data directory, or has none there, belongs to an earlier data directory with the
/// same path. Its rows come from another log.
async fn run(site: &Site, options: &LocalOptions) -> Result<(Access, Running, bool), LocalError> {
    let refused = match site.password()? {
        None => "its password is gone",
        Some(password) => match run_with(site, options, password).await {
            Err(LocalError::Password(_)) => "it does not accept its password",
            done => return done,
        },
    };
    end_unknown(site).await?;
    site.set_aside(refused)?;
    run_with(site, options, site.make_password()?).await
}

async fn run_with(
    site: &Site,
    options: &LocalOptions,
    password: String,
) -> Result<(Access, Running, bool), LocalError> {
    let access = Access::new(password);
    if let Some(running) = adopt(site, &access, options).await? {
        return Ok((access, running, true));
    }
    let running = start_server(site, &access, options).await?;
    Ok((access, running, false))
}

/// The server that is already running, if it answers. A server that does not answer is ended.
async fn adopt(
    site: &Site,
    access: &Access,
    options: &LocalOptions,
) -> Result<Option<Running>, LocalError> {
    let cluster = site.cluster();
    let mut waiting = Waiting::for_at_most(options.start_timeout);
    while let Some(file) = PidFile::read(&cluster)? {
        // The new server is told that the file names no server, see `launch`.
        if postmaster::identify(file.pid, &cluster) != Process::Ours {
            return Ok(None);
        }
        if let Some(running) = answering(&file, &cluster, access).await? {
            return Ok(Some(running));
        }
        // A server that is not ready is recovering from a crash, or is shutting down.
        let patience = if file.ready() { ADOPT_PATIENCE } else { options.start_timeout };
        if waiting.elapsed() >= patience {
            tracing::warn!(
                pid = file.pid,
                "the private database runs but does not answer, ending it"
            );
            postmaster::stop(file.pid, &cluster, Shutdown::Immediate).await?;
            return Ok(None);
        }
        waiting.report("one runs and does not answer yet");
        tokio::time::sleep(POLL).await;
    }
    end_unknown(site).await?;
    // A file that names no process, as a power cut can leave it: no server would start beside it.
    site::remove_if_there(&PidFile::path(&cluster))?;
    Ok(None)
}

/// Ends a server that cannot be adopted, because its file or its password is gone.
async fn end_unknown(site: &Site) -> Result<(), LocalError> {
    let cluster = site.cluster();
    let Some(pid) = postmaster::find(&cluster) else { return Ok(()) };
    tracing::warn!(pid, "the private database runs and cannot be used, ending it");
    postmaster::stop(pid, &cluster, Shutdown::Immediate).await
}

async fn answering(
    file: &PidFile,
    cluster: &Path,
    access: &Access,
) -> Result<Option<Running>, LocalError> {
    let Some(port) = file.port.filter(|_| file.ready()) else {
        return Ok(None);
    };
    let answers = access.answers(port, cluster).await?;
    Ok(answers.then_some(Running { pid: file.pid, port }))
}

async fn start_server(
    site: &Site,
    access: &Access,
    options: &LocalOptions,
) -> Result<Running, LocalError> {
    let made_by = site.cluster_major();
    let binaries = find_binaries(site, options, made_by).await?;
    if made_by != Some(binaries.major) {
        site.set_aside("it was made by another version of PostgreSQL")?;
        cluster::make(site, &binaries, access, options).await?;
    }
    cluster::write_settings(site, options)?;
    server::launch(site, &binaries, access, options, None).await
}

/// The programs installed on this machine, or else the ones that are downloaded now or were at an
/// earlier start.
async fn find_binaries(
    site: &Site,
    options: &LocalOptions,
    preferred: Option<u32>,
) -> Result<Binaries, LocalError> {
    let fetched = site.home.join("programs");
    let folders = match &options.bin_dir {
        Some(folder) => vec![folder.clone()],
        None => binaries::candidates(fetched.join(fetch::PROGRAMS)),
    };
    match binaries::find(&folders, site.account.as_ref(), preferred) {
        Err(LocalError::NoBinaries { searched }) if options.bin_dir.is_none() => {
            fetch::fetch(&fetched)
                .await
                .map_err(|why| LocalError::NoBinaries { searched: format!("{searched}; {why}") })?;
            binaries::find(&[fetched.join(fetch::PROGRAMS)], site.account.as_ref(), preferred)
        }
        found => found,
    }
}
