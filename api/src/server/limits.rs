//! What clients may take up, as far as the system lets this process have it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::time::Duration;

/// The most connections, if the system has files for them.
const MAX_CONNECTIONS: usize = 10_000;

/// Files that are not for connections: the log, the database, Kafka.
const OTHER_FILES: u64 = 512;

/// What clients may take up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once. One more ends the one that has had no request for the longest time, or
    /// waits in the kernel's queue while all have one.
    pub connections: usize,
    /// How long a client may take to send a request's head, and the first byte of the first one.
    pub header_read_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: MAX_CONNECTIONS, header_read_timeout: Duration::from_secs(15) }
    }
}

impl Limits {
    /// The defaults, as far as this process may have files for them: it takes as many as it may.
    pub fn of_process() -> Self {
        let files = files();
        let room = usize::try_from(files.saturating_sub(OTHER_FILES).max(files / 2));
        let connections = room.unwrap_or(MAX_CONNECTIONS).clamp(1, MAX_CONNECTIONS);
        if connections < MAX_CONNECTIONS {
            tracing::warn!(
                connections,
                files,
                "the system's limit of open files (ulimit -n) leaves room for few connections"
            );
        }
        Self { connections, ..Self::default() }
    }
}

/// How many files this process may open, after raising that as far as it may.
fn files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Unlimited is `None`.
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(error) => {
            tracing::debug!(%error, "the limit of open files cannot be raised");
            limit.current.unwrap_or(u64::MAX)
        }
    }
}
