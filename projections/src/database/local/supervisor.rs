//! Starts the private server again when it ends by itself: the system was out of memory, or somebody
//! ended it.

use std::time::Duration;

use events::full_text;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::error::LocalError;
use super::postmaster::{self, PidFile, Process, Shutdown};
use super::server::{self, Watch};
use super::{LocalPostgres, adopt, cluster, find_binaries};

/// The pause between two checks whether the server still runs.
const ALIVE_POLL: Duration = Duration::from_millis(250);

/// A server that has run for this long has started well.
const STABLE: Duration = Duration::from_mins(1);

/// A smart shutdown (SIGTERM) lets the sessions go on and accepts no new ones, so that it never ends
/// while the program lives. After this time the server is ended. A supervisor that signals both may
/// be stopping the program meanwhile, which takes less.
const SMART_PATIENCE: Duration = Duration::from_secs(30);

/// So many starts in a row may fail, or end before the server is stable.
const MOST_TRIES: u32 = 5;

/// A private server that is started again when it ends by itself. It keeps its port, so that its
/// connection options stay valid.
///
/// Dropping this ends the supervision and leaves the server as [`LocalPostgres`] does.
pub struct SupervisedPostgres {
    process: watch::Receiver<u32>,
    failure: mpsc::Receiver<LocalError>,
    task: JoinHandle<LocalPostgres>,
    end: DropGuard,
}

impl SupervisedPostgres {
    pub(super) fn begin(mut postgres: LocalPostgres) -> Self {
        let (tell_process, process) = watch::channel(postgres.process_id());
        let (tell_failure, failure) = mpsc::channel(1);
        let end = CancellationToken::new();
        let ended = end.clone();
        let task = tokio::spawn(async move {
            let failed = ended.run_until_cancelled(postgres.keep_running(&tell_process)).await;
            if let Some(error) = failed {
                // Nobody listens any more when the program stops.
                let _ = tell_failure.try_send(error);
            }
            postgres
        });
        Self { process, failure, task, end: end.drop_guard() }
    }

    /// The server's process id, which changes when the server is started again.
    pub fn process_id(&self) -> watch::Receiver<u32> {
        self.process.clone()
    }

    /// Resolves once, when the server has ended by itself and cannot be started again.
    pub async fn failed(&mut self) -> LocalError {
        match self.failure.recv().await {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }

    /// Stops the server, see [`LocalPostgres::stop`].
    pub async fn stop(self) -> Result<(), LocalError> {
        drop(self.end);
        match self.task.await {
            Ok(postgres) => postgres.stop().await,
            // The task has panicked. The next start adopts the server.
            Err(_) => Ok(()),
        }
    }
}

impl LocalPostgres {
    /// Starts the server again whenever it ends by itself. Returns when that does not help.
    async fn keep_running(&mut self, process: &watch::Sender<u32>) -> LocalError {
        let mut tries = 0;
        loop {
            let started = Instant::now();
            self.ended().await;
            if started.elapsed() >= STABLE {
                tries = 0;
            }
            let (pid, log) = (self.running.pid, self.site.log());
            tracing::error!(
                pid,
                log = %log.display(),
                "the private database has ended by itself, starting it again"
            );
            let ended = Instant::now();
            if let Err(error) = self.try_restart(&mut tries).await {
                return error;
            }
            metrics::counter!("orderlog_private_postgres_restarts_total").increment(1);
            let (pid, seconds) = (self.running.pid, ended.elapsed().as_secs_f32());
            tracing::warn!(pid, seconds, "the private database runs again");
            process.send_replace(pid);
        }
    }

    /// Resolves when the server does not run any more. An adopted server is no child, so that only
    /// its process tells.
    async fn ended(&self) {
        let (pid, cluster) = (self.running.pid, self.site.cluster());
        let mut served = Instant::now();
        while postmaster::identify(pid, &cluster) == Process::Ours {
            let file = PidFile::read(&cluster).ok().flatten();
            if !file.is_some_and(|file| file.stopping()) {
                served = Instant::now();
            } else if served.elapsed() >= SMART_PATIENCE {
                // A failure leaves it as it is, for the next try.
                let _ = postmaster::stop(pid, &cluster, Shutdown::Fast).await;
            }
            tokio::time::sleep(ALIVE_POLL).await;
        }
    }

    /// Tries to start the server again, with longer and longer pauses.
    async fn try_restart(&mut self, tries: &mut u32) -> Result<(), LocalError> {
        let mut failed = None;
        while *tries < MOST_TRIES {
            tokio::time::sleep(pause(*tries)).await;
            *tries += 1;
            match self.restart().await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    let error = failed.insert(error);
                    tracing::error!(
                        error = full_text(error),
                        tries = *tries,
                        "the private database was not started again"
                    );
                }
            }
        }
        let log = self.site.log();
        Err(failed.unwrap_or(LocalError::KeepsEnding { times: MOST_TRIES, log }))
    }

    /// Starts the server on the same cluster and the same port. The parts of the program that use
    /// the database would not survive another cluster: a new start of the program makes that.
    async fn restart(&mut self) -> Result<(), LocalError> {
        let Self { site, access, options, .. } = &*self;
        let port = self.running.port;
        let running = match adopt(site, access, options).await? {
            Some(found) if found.port == port => found,
            found => {
                let folder = site.cluster();
                if let Some(found) = found {
                    postmaster::stop(found.pid, &folder, Shutdown::Fast).await?;
                }
                let made_by = site.cluster_major();
                let binaries = find_binaries(site, options, made_by).await?;
                if made_by != Some(binaries.major) {
                    return Err(LocalError::Replaced { folder });
                }
                cluster::write_settings(site, options)?;
                server::launch(site, &binaries, access, options, Some(port)).await?
            }
        };
        self.running = running;
        if let Some(watch) = self.watch.take() {
            watch.cancel();
            self.watch = Some(Watch::begin(running.pid, &self.site.cluster(), &self.remove)?);
        }
        Ok(())
    }
}

/// None before the first try; then 2, 4, 8 and 16 s.
fn pause(tries: u32) -> Duration {
    Duration::from_secs(u64::from(tries > 0) << tries)
}
