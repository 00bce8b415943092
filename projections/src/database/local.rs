//! The private `PostgreSQL` cluster the program starts itself when no `DATABASE_URL` is set.
//!
//! It holds read models only, so it may be thrown away: a cluster that cannot be used (made by another
//! version, password lost) is put aside and a new one made.
//!
//! - It listens on loopback, on a port chosen at each start; the password lies in the data directory.
//! - A hard kill of the program leaves it running. The next start adopts it, or ends it if it does not answer.
//! - As root the server runs as another user, because it refuses to run as root.

#![expect(
    clippy::disallowed_methods,
    reason = "a cluster is a process of this machine: its waits and its PATH are real"
)]

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use tokio::time::Instant;

mod access;
mod account;
mod binaries;
mod cluster;
mod error;
mod fetch;
mod postmaster;
mod server;
mod site;

pub use error::LocalError;

use access::Access;
use binaries::Binaries;
use error::IoContext;
use postmaster::{LOOK_AGAIN, PidFile, Process, Shutdown};
use server::{Running, Watch};
use site::Site;

/// A server that says it is ready but does not answer for this long is ended.
const ADOPT_PATIENCE: Duration = Duration::from_secs(10);

/// How long the server lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Until [`LocalPostgres::stop`]. It outlives a killed program, and the next start adopts it.
    UntilStopped,
    /// Until the handle is dropped, or this process ends in any way: for tests. Dropping blocks.
    Bound,
}

/// Where and how the private cluster runs.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// The program's data directory; the cluster lives in `postgres/` below it.
    pub data_dir: PathBuf,
    /// Where the server's programs are; `None` searches the machine.
    pub bin_dir: Option<PathBuf>,
    /// Where the cluster lives if we are root and the server's user cannot reach the data directory.
    pub fallback_dir: PathBuf,
    /// How long the server lives.
    pub lifetime: Lifetime,
    /// Whether what is committed survives a crash of the machine. Off makes tests faster.
    pub durable: bool,
    /// How long the server may take to answer, recovery after a crash included.
    pub start_timeout: Duration,
}

impl LocalOptions {
    /// What the program uses.
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

    /// For tests: bound to the handle and the process, and not durable.
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
    home: PathBuf,
    cluster: PathBuf,
    adopted: bool,
    owned: bool,
    /// Ends a bound server at drop.
    watch: Option<Watch>,
}

impl LocalPostgres {
    /// Starts the cluster of a data directory, making it if it is not there, or adopts the one that
    /// runs. The caller holds the data directory's lock: two starts at once are not made safe here.
    pub async fn start(options: LocalOptions) -> Result<Self, LocalError> {
        Self::start_watched(&options, Vec::new()).await
    }

    /// A cluster that is in nobody's way: in a temporary folder, gone with the handle or the process.
    /// For tests, which share it through [`LocalPostgres::create_database`].
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
        let access = Access::new(password(&site).await?);
        let adopted = adopt(&site, &access, options).await?;
        let running = match adopted {
            Some(running) => running,
            None => start_server(&site, &access, options).await?,
        };
        let cluster = site.cluster();
        if !remove.is_empty() {
            remove.push(site.home.clone());
        }
        let watch = (options.lifetime == Lifetime::Bound)
            .then(|| Watch::begin(running.pid, &cluster, &remove))
            .transpose()?;
        access.ensure_database(running.port).await?;
        tracing::info!(
            port = running.port,
            pid = running.pid,
            adopted = adopted.is_some(),
            folder = %site.home.display(),
            "the private database is ready"
        );
        Ok(Self {
            running,
            access,
            home: site.home,
            cluster,
            adopted: adopted.is_some(),
            owned: true,
            watch,
        })
    }

    /// The running cluster of a data directory, if there is one, without becoming its owner: stopping
    /// or dropping the result leaves it running. Nothing is made or changed.
    pub async fn attach(data_dir: impl AsRef<Path>) -> Result<Option<Self>, LocalError> {
        Self::attach_with(&LocalOptions::new(data_dir.as_ref())).await
    }

    /// [`LocalPostgres::attach`] for other options than the usual ones.
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
                    home: site.home,
                    cluster,
                    adopted: true,
                    owned: false,
                    watch: None,
                }));
            }
        }
        Ok(None)
    }

    /// How to connect to the program's database.
    pub fn connect_options(&self) -> PgConnectOptions {
        self.access.options(self.running.port, cluster::DATABASE)
    }

    /// The same as a URL, for other programs. It holds the password.
    pub fn url(&self) -> String {
        self.access.url(self.running.port)
    }

    /// Makes another database in this cluster, empty. The name is plain: lower-case letters, digits and
    /// underscores.
    pub async fn create_database(&self, name: &str) -> Result<PgConnectOptions, LocalError> {
        self.access.create_plain(self.running.port, name).await?;
        Ok(self.access.options(self.running.port, name))
    }

    /// Whether the server ran already.
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// The server's process id.
    pub fn process_id(&self) -> u32 {
        self.running.pid
    }

    /// The folder with the cluster, its settings and its log.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Ends the server: sessions are closed and a checkpoint is written, in 30 s at most, else its
    /// processes are ended and the next start recovers. An attached server is left running.
    pub async fn stop(self) -> Result<(), LocalError> {
        if !self.owned {
            return Ok(());
        }
        postmaster::stop(self.running.pid, &self.cluster, Shutdown::Fast).await
    }
}

impl fmt::Debug for LocalPostgres {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalPostgres")
            .field("running", &self.running)
            .field("home", &self.home)
            .field("adopted", &self.adopted)
            .field("owned", &self.owned)
            .field("bound", &self.watch.is_some())
            .finish_non_exhaustive()
    }
}

/// The password of the data directory. Without one, what cluster there is belongs to an earlier data
/// directory of the same path: its rows come from another log.
async fn password(site: &Site) -> Result<String, LocalError> {
    if let Some(password) = site.password()? {
        return Ok(password);
    }
    let cluster = site.cluster();
    if let Some(file) = PidFile::read(&cluster)? {
        postmaster::stop(file.pid, &cluster, Shutdown::Immediate).await?;
    }
    site.set_aside("its password is gone")?;
    site.make_password()
}

/// The server that runs already, if it answers. One that does not is ended.
async fn adopt(
    site: &Site,
    access: &Access,
    options: &LocalOptions,
) -> Result<Option<Running>, LocalError> {
    let cluster = site.cluster();
    let begun = Instant::now();
    while let Some(file) = PidFile::read(&cluster)? {
        match postmaster::identify(file.pid, &cluster) {
            Process::Ours => {}
            // The server deals with such a file itself.
            Process::Gone => return Ok(None),
            // The server would take the other program for one of its kind and refuse to start.
            Process::Another => {
                site::remove_if_there(&PidFile::path(&cluster))?;
                return Ok(None);
            }
        }
        if let Some(running) = answering(&file, &cluster, access).await? {
            return Ok(Some(running));
        }
        // One that is not ready recovers from a crash, or is on its way out.
        let patience = if file.ready() { ADOPT_PATIENCE } else { options.start_timeout };
        if begun.elapsed() >= patience {
            tracing::warn!(
                pid = file.pid,
                "the private database runs but does not answer, ending it"
            );
            postmaster::stop(file.pid, &cluster, Shutdown::Immediate).await?;
            return Ok(None);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(None)
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
    server::launch(site, &binaries, access, options).await
}

/// The programs on this machine, else those fetched, now or at an earlier start.
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
