//! A private server that may be stopped and started again.

use projections::database::local::{LocalOptions, LocalPostgres};
use sqlx::postgres::PgConnectOptions;
use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};
use tempfile::TempDir;

pub struct Cluster {
    running: Option<LocalPostgres>,
    /// Another one after each start.
    pub port: Arc<AtomicU16>,
    databases: u32,
    folder: TempDir,
}

impl Cluster {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The server may run as another user.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).unwrap();
        let port = Arc::new(AtomicU16::new(0));
        let mut cluster = Self { running: None, port, databases: 0, folder };
        cluster.run().await;
        cluster
    }

    async fn run(&mut self) {
        let options = LocalOptions::for_tests(self.folder.path());
        let running = LocalPostgres::start(options).await.unwrap();
        self.port.store(running.connect_options().get_port(), Ordering::Relaxed);
        self.running = Some(running);
    }

    pub async fn new_database(&mut self) -> PgConnectOptions {
        let name = format!("db{}", self.databases);
        self.databases += 1;
        self.running.as_ref().unwrap().create_database(&name).await.unwrap()
    }

    /// Stops it without a word, and starts it again.
    pub async fn restart(&mut self) {
        let running = self.running.take();
        // Its end is waited for.
        tokio::task::spawn_blocking(|| drop(running)).await.unwrap();
        self.run().await;
    }
}

/// Kills a process of the server, as the kernel does when there is no memory left.
pub fn kill(process: u32) {
    let script = format!("kill -s KILL {process}");
    Command::new("sh").args(["-c", &script]).status().unwrap();
}
