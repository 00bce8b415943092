//! Where a run keeps its log and its database, and how they go away again.

use crate::{
    args::{Args, LogKind},
    floor::kafka::delete_topic,
};
use anyhow::{Context, Result};
use events::{
    Environment,
    environment::System,
    log::{
        EventLog,
        embedded::EmbeddedLog,
        kafka::{KafkaLog, KafkaSettings},
        memory::MemoryLog,
    },
};
use projections::database::local::{Lifetime, LocalOptions, LocalPostgres};
use std::{fs::Permissions, os::unix::fs::PermissionsExt, path::Path, sync::Arc};
use tempfile::TempDir;
use uuid::Uuid;

/// The place of one run.
pub struct Place {
    /// The real clock, real ids.
    pub environment: Arc<dyn Environment>,
    kind: LogKind,
    partitions: u32,
    folder: TempDir,
    kafka: Option<String>,
    topic: String,
}

/// An open log.
pub struct OpenLog {
    /// The log.
    pub log: Arc<dyn EventLog>,
    embedded: Option<Arc<EmbeddedLog>>,
}

impl OpenLog {
    /// Waits until the log's file is closed.
    pub async fn close(self) {
        if let Some(log) = self.embedded {
            log.close().await;
        }
    }
}

impl Place {
    /// An empty place.
    ///
    /// # Errors
    /// When no folder can be made, or Kafka is asked for and not named.
    pub fn make(args: &Args, kind: LogKind) -> Result<Self> {
        let base = args.dir.clone().unwrap_or_else(std::env::temp_dir);
        // A database server that runs as another user has to get through.
        let folder = tempfile::Builder::new()
            .prefix("orderlog-bench-")
            .permissions(Permissions::from_mode(0o711))
            .tempdir_in(&base)
            .with_context(|| format!("cannot make a folder in {}", base.display()))?;
        if kind == LogKind::Kafka {
            args.kafka.as_ref().context("--log kafka needs --kafka HOST:PORT")?;
        }
        Ok(Self {
            environment: Arc::new(System::new()),
            kind,
            partitions: args.partitions,
            folder,
            kafka: args.kafka.clone(),
            topic: format!("orderlog.bench.{}", Uuid::now_v7()),
        })
    }

    /// The folder of this run.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the log is kept in.
    pub fn kind(&self) -> LogKind {
        self.kind
    }

    /// Partitions of the log.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// Kafka's address and the topic, if the log is there.
    pub fn kafka(&self) -> Option<(&str, &str)> {
        let servers = self.kafka.as_deref().filter(|_| self.kind == LogKind::Kafka)?;
        Some((servers, &self.topic))
    }

    /// Makes or opens the log.
    ///
    /// # Errors
    /// When it does not open.
    pub async fn open_log(&self) -> Result<OpenLog> {
        Ok(match (self.kind, self.kafka()) {
            (LogKind::Memory, _) => {
                let log = MemoryLog::new(self.partitions, Arc::clone(&self.environment));
                OpenLog { log: Arc::new(log), embedded: None }
            }
            (_, Some((servers, topic))) => {
                let mut settings = KafkaSettings::new(servers, Arc::clone(&self.environment));
                topic.clone_into(&mut settings.topic);
                settings.partitions = Some(self.partitions);
                OpenLog { log: Arc::new(KafkaLog::connect(settings).await?), embedded: None }
            }
            (_, None) => {
                let log = EmbeddedLog::open(&self.folder().join("log"), Some(self.partitions))?;
                let log = Arc::new(log);
                OpenLog { log: Arc::clone(&log) as _, embedded: Some(log) }
            }
        })
    }

    /// A private database, as durable as the program's own; gone when dropped.
    ///
    /// # Errors
    /// When there is none to be had.
    pub async fn postgres(&self) -> Result<LocalPostgres> {
        let options = LocalOptions {
            lifetime: Lifetime::Bound,
            durable: true,
            ..LocalOptions::for_tests(self.folder())
        };
        Ok(LocalPostgres::start(options).await?)
    }

    /// Removes what is not on this machine; the folder goes by itself.
    ///
    /// # Errors
    /// When the topic does not go.
    pub async fn remove(&self) -> Result<()> {
        match self.kafka() {
            Some((servers, topic)) => delete_topic(servers, topic).await,
            None => Ok(()),
        }
    }
}
