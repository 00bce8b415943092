//! A projector apart: the real program with that role alone, in a process and a session of its own.

use crate::place::Place;
use anyhow::{Context, Result, bail};
use projections::database::local::LocalPostgres;
use std::{path::Path, process::Stdio};
use tokio::process::{Child, Command};

/// The process; killed when dropped.
pub struct Apart(Child);

impl Apart {
    /// Starts it, on this log and this database.
    ///
    /// # Errors
    /// When the log is not in Kafka, or there is no such program.
    pub fn start(program: &Path, place: &Place, postgres: &LocalPostgres) -> Result<Self> {
        let (servers, topic) = place.kafka().context("processes share a log in Kafka only")?;
        // As service managers and containers do it, whose processes share no session: the system may share its cores out to
        // sessions first.
        let mut command = Command::new("setsid");
        command.arg(program).args(["serve", "--roles", "projector", "--listen", "127.0.0.1:0"]);
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command
            .env("DATA_DIR", place.folder().join("projector"))
            .env("DATABASE_URL", postgres.url())
            .env("KAFKA_BOOTSTRAP_SERVERS", servers)
            .env("KAFKA_TOPIC", topic)
            .env("RUST_LOG", "warn");
        command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("cannot run {}", program.display()))?;
        Ok(Self(child))
    }

    /// Resolves when it has ended by itself, which it never should.
    ///
    /// # Errors
    /// Always.
    pub async fn died(&mut self) -> Result<()> {
        bail!("the projector ended: {}", self.0.wait().await?)
    }

    /// Kills it: what it was at is in the log.
    pub async fn stop(mut self) {
        // An error means that it has ended.
        let _ = self.0.kill().await;
    }
}
