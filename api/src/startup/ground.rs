//! The resources that the program runs on: the data directory, the log and the database.

use super::StartError;
use crate::{
    config::{Config, LogChoice},
    data_dir::{self, DataDir, DataDirError},
};
use events::{
    Environment, full_text,
    log::{
        ConnectError, EventLog,
        embedded::EmbeddedLog,
        kafka::{KafkaLog, KafkaSettings},
    },
};
use projections::database::{
    self, PoolSettings,
    local::{LocalError, LocalOptions, LocalPostgres, SupervisedPostgres},
};
use sqlx::{PgPool, postgres::PgConnectOptions};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::watch;

/// The resources that the program runs on. While it has them, no other process can.
pub struct Ground {
    /// The data directory, locked.
    pub data_dir: DataDir,
    /// The log, open for writing.
    pub log: OpenLog,
    /// The read models' database.
    pub database: Database,
}

impl Ground {
    /// Locks the data directory, opens the log and connects to (or starts) the database.
    ///
    /// # Errors
    /// [`StartError`]. Everything that was opened is closed again.
    pub(super) async fn open(
        config: &Config,
        environment: &Arc<dyn Environment>,
    ) -> Result<Self, StartError> {
        let data_dir = DataDir::lock(&config.data_dir)?;
        let log = open_log(config, data_dir.path(), environment).await?;
        let database = Database::open(config, data_dir.path(), log.port().partitions()).await?;
        Ok(Self { data_dir, log, database })
    }

    /// Closes the log and the connections, and stops a private database.
    pub(super) async fn close(self) {
        self.database.close().await;
        self.log.close().await;
    }
}

/// An open log. The embedded one must be closed.
pub enum OpenLog {
    /// In the data directory.
    Embedded(Arc<EmbeddedLog>),
    /// In Kafka.
    Kafka(Arc<KafkaLog>),
}

impl OpenLog {
    /// The log as a port.
    pub fn port(&self) -> Arc<dyn EventLog> {
        match self {
            Self::Embedded(log) => Arc::clone(log) as _,
            Self::Kafka(log) => Arc::clone(log) as _,
        }
    }

    /// Waits until the commits under way are finished, and closes the file.
    pub async fn close(self) {
        if let Self::Embedded(log) = self {
            log.close().await;
        }
    }
}

/// Opens the log for writing, and creates it if it does not exist.
///
/// # Errors
/// [`ConnectError`] if the log is refused, in use, or cannot be reached.
pub async fn open_log(
    config: &Config,
    data_dir: &Path,
    environment: &Arc<dyn Environment>,
) -> Result<OpenLog, ConnectError> {
    match &config.log {
        LogChoice::Embedded => {
            let log = EmbeddedLog::open(&log_dir(data_dir), config.partitions)?;
            Ok(OpenLog::Embedded(Arc::new(log)))
        }
        LogChoice::Kafka { bootstrap_servers, topic, properties } => {
            let settings = KafkaSettings {
                bootstrap_servers: bootstrap_servers.clone(),
                topic: topic.clone(),
                partitions: config.partitions,
                extra: properties.clone(),
                environment: Arc::clone(environment),
            };
            Ok(OpenLog::Kafka(Arc::new(KafkaLog::connect(settings).await?)))
        }
    }
}

/// The database of the read models, migrated to this program.
pub struct Database {
    /// How to connect.
    pub options: PgConnectOptions,
    /// Connections for queries.
    pub pool: PgPool,
    /// The server process, if the database is private.
    postgres: Option<SupervisedPostgres>,
}

impl Database {
    /// The process id of the private server.
    pub fn server(&self) -> Option<watch::Receiver<u32>> {
        self.postgres.as_ref().map(SupervisedPostgres::process_id)
    }

    /// Resolves when the private server has ended and cannot be started again.
    pub(super) async fn failed(&mut self) -> LocalError {
        match &mut self.postgres {
            Some(postgres) => postgres.failed().await,
            None => std::future::pending().await,
        }
    }

    /// Connects to the configured database, or starts the private one, and migrates it for a log
    /// with this number of partitions.
    pub(super) async fn open(
        config: &Config,
        data_dir: &Path,
        partitions: u32,
    ) -> Result<Self, StartError> {
        let (options, postgres) = if let Some(options) = config.database.clone() {
            (options, None)
        } else {
            data_dir::let_pass(data_dir)
                .map_err(|source| DataDirError::Io { path: data_dir.to_owned(), source })?;
            let postgres = start_postgres(data_dir).await?;
            (postgres.connect_options(), Some(postgres.supervise()))
        };
        let prepared = async {
            let pool = database::connect(options.clone(), PoolSettings::default()).await?;
            database::migrate(&pool).await?;
            projections::prepare(&pool, partitions).await?;
            Ok(pool)
        };
        match prepared.await {
            Ok(pool) => Ok(Self { options, pool, postgres }),
            Err(error) => {
                stop_postgres(postgres).await;
                Err(error)
            }
        }
    }

    /// Closes the connections and stops a private server.
    pub(super) async fn close(self) {
        self.pool.close().await;
        stop_postgres(self.postgres).await;
    }
}

async fn stop_postgres(postgres: Option<SupervisedPostgres>) {
    if let Some(postgres) = postgres
        && let Err(error) = postgres.stop().await
    {
        tracing::warn!(error = full_text(&error), "the private database did not stop");
    }
}

/// The folder of the embedded log.
pub fn log_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("log")
}

/// The file of the built-in key pair.
pub fn auth_key_path(data_dir: &Path) -> PathBuf {
    data_dir.join("auth.key")
}

/// Starts the private database of a data directory, which the caller has locked.
///
/// # Errors
/// [`LocalError`] if there is no PostgreSQL on this machine, or it does not start.
pub async fn start_postgres(data_dir: &Path) -> Result<LocalPostgres, LocalError> {
    LocalPostgres::start(LocalOptions::new(data_dir)).await
}
