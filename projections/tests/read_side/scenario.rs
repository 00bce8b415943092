//! A database, a log and projectors upon them.

use crate::shop::Scribe;
use events::{
    Partition,
    environment::System,
    log::{EventLog, memory::MemoryLog},
};
use projections::{
    Progress, Projector, ProjectorSettings, ReadModel, ReadModels,
    database::{self, PoolSettings, local::LocalPostgres},
};
use sqlx::{AssertSqlSafe, PgPool, postgres::PgConnectOptions};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::sync::OnceCell;

static POSTGRES: OnceCell<LocalPostgres> = OnceCell::const_new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

pub const PATIENCE: Duration = Duration::from_secs(30);

pub async fn new_database() -> PgConnectOptions {
    let postgres =
        POSTGRES.get_or_init(|| async { LocalPostgres::throwaway().await.unwrap() }).await;
    let name = format!("db{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    postgres.create_database(&name).await.unwrap()
}

pub fn settings() -> ProjectorSettings {
    ProjectorSettings {
        tick: Duration::from_millis(30),
        lease: Duration::from_millis(600),
        ..ProjectorSettings::default()
    }
}

pub struct Scenario {
    pub log: Arc<dyn EventLog>,
    pub options: PgConnectOptions,
    pub pool: PgPool,
    pub scribe: Scribe,
    pub progress: Progress,
}

impl Scenario {
    pub async fn new(partitions: u32) -> Self {
        let memory = MemoryLog::new(partitions, Arc::new(System::new()));
        let log: Arc<dyn EventLog> = Arc::new(memory);
        let options = new_database().await;
        let pool = database::connect(options.clone(), PoolSettings::default()).await.unwrap();
        projections::prepare(&pool, partitions).await.unwrap();
        let scribe = Scribe::new(Arc::clone(&log));
        Self { log, options, pool, scribe, progress: Progress::new(partitions) }
    }

    pub async fn projector(&self, settings: ProjectorSettings) -> Projector {
        self.projector_with(self.progress.clone(), settings).await
    }

    pub async fn projector_with(
        &self,
        progress: Progress,
        settings: ProjectorSettings,
    ) -> Projector {
        let environment = Arc::new(System::new());
        let log = Arc::clone(&self.log);
        Projector::start(log, self.options.clone(), environment, progress, settings).await.unwrap()
    }

    /// As a process with the projector sees them.
    pub fn models(&self) -> ReadModels {
        ReadModels::new(self.pool.clone(), self.progress.clone(), Arc::clone(&self.log))
    }

    /// As a process without a projector sees them.
    pub fn models_elsewhere(&self) -> ReadModels {
        let progress = Progress::new(self.log.partitions());
        ReadModels::new(self.pool.clone(), progress, Arc::clone(&self.log))
    }

    /// Waits until every read model has seen all that is in the log now.
    pub async fn settle(&self) {
        let models = self.models();
        for model in ReadModel::ALL {
            for partition in (0..self.log.partitions()).map(Partition) {
                models.wait_for_end(model, partition, PATIENCE).await.unwrap();
            }
        }
    }

    /// A version's tables, all rows in order.
    pub async fn dump(&self, model: ReadModel, version: u32) -> Vec<String> {
        self.dump_schema(&format!("{model}_v{version}")).await
    }

    /// All rows of all tables of a schema, as text.
    pub async fn dump_schema(&self, schema: &str) -> Vec<String> {
        let tables: Vec<String> = sqlx::query_scalar(
            "select tablename::text from pg_tables where schemaname = $1 order by tablename",
        )
        .bind(schema)
        .fetch_all(&self.pool)
        .await
        .unwrap();
        let mut rows = Vec::new();
        for table in tables {
            let query = format!("select t::text from {schema}.{table} t order by 1");
            let found = sqlx::query_scalar::<_, String>(AssertSqlSafe(query));
            let found = found.fetch_all(&self.pool).await.unwrap();
            rows.extend(found.into_iter().map(|row| format!("{table} {row}")));
        }
        rows
    }

    /// All tables of the first versions.
    pub async fn dump_all(&self) -> Vec<Vec<String>> {
        let mut dump = Vec::new();
        for model in ReadModel::ALL {
            dump.push(self.dump(model, 1).await);
        }
        dump
    }

    /// Checkpoints as (events, stopped) of a version, by partition.
    pub async fn checkpoints(&self, model: ReadModel, version: i32) -> Vec<(i64, Option<String>)> {
        sqlx::query_as(
            "select events, stopped from control.checkpoint \
             where projection = $1 and version = $2 order by partition",
        )
        .bind(model.as_str())
        .bind(version)
        .fetch_all(&self.pool)
        .await
        .unwrap()
    }
}

/// Looks again and again until it is so.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
