//! Limits on clients, adapted to the limit of open files of this process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::time::Duration;

/// The most connections, if the process may open that many files.
const MAX_CONNECTIONS: usize = 10_000;

/// Open files reserved for the log, the database and Kafka.
const OTHER_FILES: u64 = 512;

/// Limits on clients.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most connections. A further one ends the connection that has been idle for the longest
    /// time or, while none is idle, waits in the kernel's queue.
    pub connections: usize,
    /// The most connections from one address; `usize::MAX` for no limit.
    pub connections_per_address: usize,
    /// How long a client may take to send the head of a request, or the first byte of a connection.
    pub head: Duration,
    /// How long a connection may be idle between two requests. Longer than the 60 s for which
    /// proxies keep connections, so that they do not send a request into one that is being closed.
    pub idle: Duration,
    /// How long a client may take nothing of an answer.
    pub taken: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: MAX_CONNECTIONS,
            connections_per_address: usize::MAX,
            head: Duration::from_secs(15),
            idle: Duration::from_secs(75),
            taken: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// The defaults, with fewer connections if this process may not open enough files. Raises its
    /// limit of open files as far as possible first.
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

    /// The same limits with this number of connections from one address; 0 for no limit.
    #[must_use]
    pub fn per_address(self, connections: u32) -> Self {
        let most = if connections == 0 { usize::MAX } else { connections as usize };
        Self { connections_per_address: most, ..self }
    }
}

/// The number of files that this process may open, after raising the limit as far as possible.
fn files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // `None` is unlimited.
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(error) => {
            tracing::debug!(%error, "the limit of open files cannot be raised");
            limit.current.unwrap_or(u64::MAX)
        }
    }
}
