//! Access to the log and the read models for commands other than `serve`, with or without a running
//! server.

use anyhow::{Context, bail};
use events::{Environment, environment::System, log::EventLog, log::embedded::EmbeddedLog};
use orderlog::{
    config::{Config, LogChoice},
    data_dir::DataDir,
    startup,
};
use projections::database::{self, PoolSettings, local::LocalPostgres};
use sqlx::{PgPool, postgres::PgConnectOptions};
use std::{path::Path, sync::Arc, time::Duration};

/// How long a server that is just starting may take to start its database.
const SERVER_START: Duration = Duration::from_mins(1);

/// The pause between two checks whether the server's database runs.
const DATABASE_POLL: Duration = Duration::from_millis(100);

/// The log, open for reading.
pub async fn log(config: &Config) -> anyhow::Result<Arc<dyn EventLog>> {
    let environment: Arc<dyn Environment> = Arc::new(System::new());
    match &config.log {
        LogChoice::Embedded => {
            Ok(Arc::new(EmbeddedLog::open_read_only(&startup::log_dir(&config.data_dir))?))
        }
        LogChoice::Kafka { .. } => {
            Ok(startup::open_log(config, &config.data_dir, &environment).await?.port())
        }
    }
}

/// The database of the read models, migrated to this program. A private database that does not run
/// is started, and stopped by [`close`](Self::close).
pub struct ReadSide {
    pub pool: PgPool,
    pub options: PgConnectOptions,
    started: Option<(LocalPostgres, DataDir)>,
}

impl ReadSide {
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        let (options, started) = if let Some(options) = &config.database {
            (options.clone(), None)
        } else if let Some(running) = attach(&config.data_dir).await? {
            (running.connect_options(), None)
        } else {
            let data_dir = DataDir::lock(&config.data_dir)?;
            let postgres = startup::start_postgres(data_dir.path()).await?;
            (postgres.connect_options(), Some((postgres, data_dir)))
        };
        let settings =
            PoolSettings { application_name: "orderlog-cli".to_owned(), ..PoolSettings::default() };
        let pool = database::connect(options.clone(), settings).await?;
        database::migrate(&pool).await?;
        Ok(Self { pool, options, started })
    }

    /// Runs `work` with read models prepared for this program. Closes the database in any case.
    pub async fn with<T>(
        config: &Config,
        log: &dyn EventLog,
        work: impl AsyncFnOnce(&Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let read_side = Self::open(config).await?;
        let done = match projections::prepare(&read_side.pool, log.partitions()).await {
            Ok(()) => work(&read_side).await,
            Err(error) => Err(error.into()),
        };
        let closed = read_side.close().await;
        let done = done?;
        closed.map(|()| done)
    }

    /// Whether this command has started the database, so that no other process uses it.
    pub fn is_ours(&self) -> bool {
        self.started.is_some()
    }

    pub async fn close(self) -> anyhow::Result<()> {
        self.pool.close().await;
        if let Some((postgres, _data_dir)) = self.started {
            postgres.stop().await.context("the private database did not stop")?;
        }
        Ok(())
    }
}

/// The private database of a running server; `None` when no server runs.
async fn attach(data_dir: &Path) -> anyhow::Result<Option<LocalPostgres>> {
    let looking = async {
        while DataDir::is_owned(data_dir)? {
            if let Some(running) = LocalPostgres::attach(data_dir).await? {
                return Ok(Some(running));
            }
            tokio::time::sleep(DATABASE_POLL).await;
        }
        anyhow::Ok(None)
    };
    match tokio::time::timeout(SERVER_START, looking).await {
        Ok(found) => found,
        Err(_) => bail!("the process that owns {} has no database running", data_dir.display()),
    }
}
