//! The log and the database of a run, and their removal.

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

/// The place where one run keeps its log and its database.
pub struct Place {
    /// The real clock and real ids.
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
    /// A log that needs no closing.
    pub fn of(log: Arc<dyn EventLog>) -> Self {
        Self { log, embedded: None }
    }

    /// Waits until the log's file is closed.
    pub async fn close(self) {
        if let Some(log) = self.embedded {
            log.close().await;
        }
    }
}

impl Place {
    /// Makes an empty place.
    ///
    /// # Errors
    /// When the folder cannot be created, or the run needs Kafka and no address was given.
    pub fn make(args: &Args, kind: LogKind) -> Result<Self> {
        let base = args.dir.clone().unwrap_or_else(std::env::temp_dir);
        // A database server that runs as another user must be able to enter the folder.
        let folder = tempfile::Builder::new()
            .prefix("orderlog-bench-")
            .permissions(Permissions::from_mode(0o711))
            .tempdir_in(&base)
            .with_context(|| format!("cannot create a folder in {}", base.display()))?;
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

    /// The kind of log.
    pub fn kind(&self) -> LogKind {
        self.kind
    }

    /// The number of partitions of the log.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// Kafka's address and the topic, if the log is on Kafka.
    pub fn kafka(&self) -> Option<(&str, &str)> {
        let servers = self.kafka.as_deref().filter(|_| self.kind == LogKind::Kafka)?;
        Some((servers, &self.topic))
    }

    /// Opens the log and creates it if necessary.
    ///
    /// # Errors
    /// When the log cannot be opened.
    pub async fn open_log(&self) -> Result<OpenLog> {
        Ok(match (self.kind, self.kafka()) {
            (LogKind::Memory, _) => {
                let log = MemoryLog::new(self.partitions, Arc::clone(&self.environment));
                OpenLog::of(Arc::new(log))
            }
            (_, Some((servers, topic))) => {
                let mut settings = KafkaSettings::new(servers, Arc::clone(&self.environment));
                topic.clone_into(&mut settings.topic);
                settings.partitions = Some(self.partitions);
                OpenLog::of(Arc::new(KafkaLog::connect(settings).await?))
            }
            (_, None) => {
                let log = EmbeddedLog::open(&self.folder().join("log"), Some(self.partitions))?;
                let log = Arc::new(log);
                OpenLog { log: Arc::clone(&log) as _, embedded: Some(log) }
            }
        })
    }

    /// Starts a private database, as durable as the program's own. It is removed when dropped.
    ///
    /// # Errors
    /// When no database can be started.
    pub async fn postgres(&self) -> Result<LocalPostgres> {
        let options = LocalOptions {
            lifetime: Lifetime::Bound,
            durable: true,
            ..LocalOptions::for_tests(self.folder())
        };
        Ok(LocalPostgres::start(options).await?)
    }

    /// Removes the topic on Kafka. The folder is removed when this is dropped.
    ///
    /// # Errors
    /// When the topic cannot be deleted.
    pub async fn remove(&self) -> Result<()> {
        match self.kafka() {
            Some((servers, topic)) => delete_topic(servers, topic).await,
            None => Ok(()),
        }
    }
}
