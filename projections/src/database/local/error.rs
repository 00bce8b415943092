//! What can go wrong with the private cluster.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

/// Why the private cluster could not be started, adopted, used or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// No `PostgreSQL` on this machine, and none could be fetched.
    #[error(
        "no PostgreSQL {oldest} or later was found ({searched}): install the package (`apt install \
         postgresql`, `brew install postgresql@17`), or set DATABASE_URL to a running server, or use \
         `docker compose up`",
        oldest = crate::database::OLDEST_MAJOR
    )]
    NoBinaries {
        /// Where it was looked for, and what was wrong with what was there.
        searched: String,
    },
    /// We are root, and there is no other account to run the server as.
    #[error(
        "PostgreSQL refuses to run as root, and neither user `postgres` nor `nobody` exists here"
    )]
    NoAccount,
    /// We are root, and the account the server runs as can reach no folder for the cluster.
    #[error("user {account} of PostgreSQL can reach neither {} nor {}", folder.display(), fallback.display())]
    Unreachable {
        /// The account.
        account: String,
        /// The folder in the data directory.
        folder: PathBuf,
        /// The folder tried instead.
        fallback: PathBuf,
    },
    /// The cluster was made by another user, and we are not root.
    #[error("the private database in {} belongs to user id {owner}, this program runs as {uid}", folder.display())]
    WrongOwner {
        /// The folder.
        folder: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        uid: u32,
    },
    /// `initdb` failed.
    #[error("initdb failed ({status}): {stderr}")]
    InitDb {
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        stderr: String,
    },
    /// The server ended while it was starting.
    #[error("PostgreSQL ended at its start ({status}): {log}")]
    Exited {
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// The server did not answer in time.
    #[error("PostgreSQL did not answer within {seconds} s, see {}", log.display())]
    NotReady {
        /// How long it was waited for, in seconds.
        seconds: u64,
        /// Its log file.
        log: PathBuf,
    },
    /// The server cannot be ended.
    #[error("the PostgreSQL process {pid} does not end")]
    Unstoppable {
        /// Its process id.
        pid: u32,
    },
    /// A statement to the cluster failed.
    #[error("cannot {what}")]
    Sql {
        /// What was tried.
        what: &'static str,
        /// What the driver said.
        #[source]
        source: sqlx::Error,
    },
    /// A database name that is not plain: lower-case letters, digits and underscores, 1 to 63.
    #[error("`{0}` is not a plain database name")]
    Name(String),
    /// A file or a process could not be used.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Names what was tried when the system said no.
pub(super) trait IoContext<T> {
    fn doing<W: Into<String>>(self, what: impl FnOnce() -> W) -> Result<T, LocalError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn doing<W: Into<String>>(self, what: impl FnOnce() -> W) -> Result<T, LocalError> {
        self.map_err(|source| LocalError::Io { what: what().into(), source })
    }
}
