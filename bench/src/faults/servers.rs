//! The real broker and the real database of a run, which can be killed, paused and restarted.

use super::{process, proxy::Proxy};
use anyhow::{Context, Result, ensure};
use projections::database::local::{Lifetime, LocalOptions, LocalPostgres};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};
use tokio::process::Command;

/// The range of ports for the broker, below those that the kernel assigns.
const PORTS: std::ops::Range<u16> = 21_000..28_000;

/// The script that controls a broker.
fn control() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/kafka/kafka")
}

/// Apache Kafka. The program reaches it through a proxy.
pub struct Broker {
    dir: PathBuf,
    port: u16,
    /// The proxy for the program.
    pub proxy: Proxy,
}

impl Broker {
    /// Starts a broker with its files in `dir`. It uses `port` and the next two ports.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(dir: PathBuf, port: Option<u16>) -> Result<Self> {
        let port = port.or_else(three_free_ports).context("no three free ports in a row")?;
        let proxy = Proxy::start(loopback(port + 2), true).await?;
        let via = proxy.address().port();
        let broker = Self { dir, port, proxy };
        broker.control(&["start"], &[&port.to_string(), &via.to_string()]).await?;
        Ok(broker)
    }

    /// The address of the broker without the proxy.
    pub fn direct(&self) -> String {
        loopback(self.port).to_string()
    }

    /// Runs a command of the broker's control script: `kill`, `restart`, `pause`, `resume` or
    /// `stop`.
    ///
    /// # Errors
    /// When the command fails.
    pub async fn tell(&self, what: &str) -> Result<()> {
        self.control(&[what], &[]).await
    }

    async fn control(&self, what: &[&str], more: &[&str]) -> Result<()> {
        let mut command = Command::new(control());
        command.args(what).arg(&self.dir).args(more).stdout(std::process::Stdio::null());
        ensure!(command.status().await?.success(), "kafka {what:?} failed");
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Kill it in any state; an error means that it does not run.
        let mut command = std::process::Command::new(control());
        let quiet = std::process::Stdio::null;
        let _ = command.arg("kill").arg(&self.dir).stdout(quiet()).stderr(quiet()).status();
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn three_free_ports() -> Option<u16> {
    let free = |port| std::net::TcpListener::bind(loopback(port)).is_ok();
    let from = PORTS.start + u16::try_from(std::process::id() % 2_000).unwrap_or_default() * 3;
    (from..PORTS.end).step_by(3).find(|&port| (port..port + 3).all(free))
}

/// A currently free port.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind(loopback(0))?.local_addr()?.port())
}

/// PostgreSQL. The program reaches it through a proxy.
pub struct Database {
    dir: PathBuf,
    server: Option<LocalPostgres>,
    /// The proxy for the program.
    pub proxy: Proxy,
}

impl Database {
    /// Starts a server with its files in `dir`.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(dir: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&dir)?;
        let server = LocalPostgres::start(options(&dir)).await?;
        let proxy = Proxy::start(loopback(server.connect_options().get_port()), false).await?;
        Ok(Self { dir, server: Some(server), proxy })
    }

    fn server(&self) -> Result<&LocalPostgres> {
        self.server.as_ref().context("the database does not run")
    }

    /// The URL of the database without the proxy.
    ///
    /// # Errors
    /// While it does not run.
    pub fn direct(&self) -> Result<String> {
        Ok(self.server()?.url())
    }

    /// The URL of the database for the program.
    ///
    /// # Errors
    /// While it does not run.
    pub fn url(&self) -> Result<String> {
        let direct = self.server()?.connect_options().get_port();
        let via = self.proxy.address().port();
        Ok(self.server()?.url().replace(&format!(":{direct}/"), &format!(":{via}/")))
    }

    /// Kills all its processes with SIGKILL. This is like a power cut, but without the loss of the
    /// disk's cache.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&mut self) -> Result<()> {
        self.signal_all("KILL")?;
        self.forget().await
    }

    /// Stops it with a fast shutdown, which closes sessions and writes a checkpoint.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(server) = self.server.take() {
            server.stop().await?;
        }
        Ok(())
    }

    /// Starts it again on its data.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn restart(&mut self) -> Result<()> {
        let server = LocalPostgres::start(options(&self.dir)).await?;
        self.proxy.point_to(loopback(server.connect_options().get_port()));
        self.server = Some(server);
        Ok(())
    }

    /// Pauses all its processes with SIGSTOP.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self) -> Result<()> {
        self.signal_all("STOP")
    }

    /// Resumes its processes with SIGCONT.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> Result<()> {
        self.signal_all("CONT")
    }

    fn signal_all(&self, signal: &str) -> Result<()> {
        let server = self.server()?.process_id();
        process::signal(server, signal)?;
        for child in process::children(server)? {
            // The process may have ended by itself.
            let _ = process::signal(child, signal);
        }
        Ok(())
    }

    /// Drops the server, which waits for its end, on a thread that may block.
    async fn forget(&mut self) -> Result<()> {
        let server = self.server.take();
        Ok(tokio::task::spawn_blocking(move || drop(server)).await?)
    }
}

fn options(dir: &Path) -> LocalOptions {
    LocalOptions { lifetime: Lifetime::Bound, durable: true, ..LocalOptions::for_tests(dir) }
}
