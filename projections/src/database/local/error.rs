//! Errors of the private cluster.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

/// Why the private cluster could not be started, adopted, used or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// There is no `PostgreSQL` on this machine, and none could be downloaded.
    #[error(
        "no PostgreSQL {oldest} or later was found ({searched}): install the package (`apt install \
         postgresql`, `brew install postgresql@17`), or set DATABASE_URL to a running server, or use \
         `docker compose up`",
        oldest = crate::database::OLDEST_MAJOR
    )]
    NoBinaries {
        /// Where it was searched for, and why each one that was found cannot be used.
        searched: String,
    },
    /// This program runs as root, and there is no other account for the server.
    #[error(
        "PostgreSQL refuses to run as root, and neither user `postgres` nor `nobody` exists here"
    )]
    NoAccount,
    /// This program runs as root, and the server's account can reach no folder for the cluster.
    #[error("user {account} of PostgreSQL can reach neither {} nor {}", folder.display(), fallback.display())]
    Unreachable {
        /// The account.
        account: String,
        /// The folder in the data directory.
        folder: PathBuf,
        /// The fallback folder.
        fallback: PathBuf,
    },
    /// Another user made the cluster, and this program does not run as root.
    #[error("the private database in {} belongs to user id {owner}, this program runs as {uid}", folder.display())]
    WrongOwner {
        /// The folder.
        folder: PathBuf,
        /// The owner of the folder.
        owner: u32,
        /// The user of this process.
        uid: u32,
    },
    /// `initdb` failed.
    #[error("initdb failed ({status}): {stderr}")]
    InitDb {
        /// Its exit status.
        status: ExitStatus,
        /// Its error output.
        stderr: String,
    },
    /// The server ended while it was starting.
    #[error("PostgreSQL ended while starting ({status}): {log}")]
    Exited {
        /// Its exit status.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// The server did not answer in time.
    #[error("PostgreSQL did not answer within {seconds} s, see {}", log.display())]
    NotReady {
        /// How long the start waited, in seconds.
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
    /// The server does not accept the password in the data directory.
    #[error("cannot log in to the private database")]
    Password(#[source] sqlx::Error),
    /// The server ended by itself, and its cluster was removed or can no longer be read.
    #[error(
        "the private database in {} cannot be started again: no installed PostgreSQL has made it; \
         start the program again to make a new one",
        folder.display()
    )]
    Replaced {
        /// The folder of the cluster.
        folder: PathBuf,
    },
    /// The server ended by itself again and again.
    #[error("the private database was started again {times} times and did not stay up, see {}", log.display())]
    KeepsEnding {
        /// How many times it was started again.
        times: u32,
        /// Its log file.
        log: PathBuf,
    },
    /// A statement to the cluster failed.
    #[error("cannot {what}")]
    Sql {
        /// What was tried.
        what: &'static str,
        /// The driver's error.
        #[source]
        source: sqlx::Error,
    },
    /// A database name may have only lower-case letters, digits and underscores, 1 to 63 of them.
    #[error(
        "`{0}` is not a valid database name: use 1 to 63 lower-case letters, digits and underscores"
    )]
    Name(String),
    /// A file or a process could not be used.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// Adds to an I/O error what was tried.
pub(super) trait IoContext<T> {
    fn doing<W: Into<String>>(self, what: impl FnOnce() -> W) -> Result<T, LocalError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn doing<W: Into<String>>(self, what: impl FnOnce() -> W) -> Result<T, LocalError> {
        self.map_err(|source| LocalError::Io { what: what().into(), source })
    }
}
