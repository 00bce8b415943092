//! The `PostgreSQL` side of the read models: pools whose sessions have time limits, transactions
//! that are safe when the caller is dropped, the shared migrations, and the private cluster of
//! [`local`].

use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool, Postgres, Transaction};
use tokio::time::Instant;

pub mod local;

/// The shared tables. The sub-folders contain the templates of the projections; the macro reads
/// only the files at the top.
static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// The oldest major version of `PostgreSQL` that the SQL of this crate supports.
pub const OLDEST_MAJOR: u32 = 15;

/// How long [`migrate`] retries when other sessions hold the locks that it needs.
const MIGRATE_PATIENCE: Duration = Duration::from_mins(2);

/// A connection that has been idle for this long is tested before use. Testing every connection
/// would cost each query a round trip.
const TEST_AFTER_IDLE: Duration = Duration::from_secs(5);

/// SQLSTATE that the migration `0010_trigrams` raises when the extension cannot be made.
const NO_EXTENSION: &str = "OL001";

/// SQLSTATE of a lock that was not granted within `lock_timeout`.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// Why the read models' database cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// The connection URL is malformed. The message does not repeat it, because it contains a
    /// password.
    #[error("the database URL is not valid")]
    Url(#[source] sqlx::Error),
    /// No connection could be opened.
    #[error("cannot connect to the database at {address}")]
    Connect {
        /// Host and port, without credentials.
        address: String,
        /// The driver's error.
        #[source]
        source: sqlx::Error,
    },
    /// The server is older than [`OLDEST_MAJOR`].
    #[error("the database server is PostgreSQL {found}, at least {OLDEST_MAJOR} is needed")]
    TooOld {
        /// The server's major version.
        found: u32,
    },
    /// The extension that search needs is missing and cannot be made.
    #[error(
        "search needs the extension pg_trgm, which this user cannot create; ask an administrator \
         to run `create extension pg_trgm with schema public` in this database"
    )]
    Extension(#[source] MigrateError),
    /// A migration failed, or other code migrated the database.
    #[error("cannot migrate the database")]
    Migrate(#[source] MigrateError),
}

/// The limits of a pool and of each session in it.
#[derive(Debug, Clone)]
pub struct PoolSettings {
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
    /// Most connections at once.
    pub max_connections: u32,
    /// Connections kept open while idle.
    pub min_connections: u32,
    /// How long a caller waits for a connection, and how long [`connect`] waits for a server that
    /// is starting.
    pub acquire_timeout: Duration,
    /// Longest single statement; `None` for work that takes long by nature, such as a rebuild.
    pub statement_timeout: Option<Duration>,
    /// Longest wait for a lock. Every later request for the same lock queues behind a waiting one.
    pub lock_timeout: Duration,
    /// The server ends a session that is idle within a transaction for longer.
    pub idle_in_transaction_timeout: Duration,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            application_name: "orderlog".to_owned(),
            max_connections: 16,
            min_connections: 0,
            acquire_timeout: Duration::from_secs(5),
            statement_timeout: Some(Duration::from_secs(30)),
            lock_timeout: Duration::from_secs(5),
            idle_in_transaction_timeout: Duration::from_secs(10),
        }
    }
}

impl PoolSettings {
    /// Sends the settings as parameters at the start of the session, so that they apply from the
    /// first statement on and cost no round trip.
    fn session(&self, options: PgConnectOptions) -> PgConnectOptions {
        let statement = self.statement_timeout.unwrap_or(Duration::ZERO);
        options.application_name(&self.application_name).options([
            ("statement_timeout", statement.as_millis()),
            ("lock_timeout", self.lock_timeout.as_millis()),
            ("idle_in_transaction_session_timeout", self.idle_in_transaction_timeout.as_millis()),
        ])
    }
}

/// Opens a pool and tests it with one connection. Waits up to `acquire_timeout` for a server that
/// is still starting.
pub async fn connect(
    options: PgConnectOptions,
    settings: PoolSettings,
) -> Result<PgPool, DatabaseError> {
    let address = format!("{}:{}", options.get_host(), options.get_port());
    let pool = self::options(&settings).connect_with(settings.session(options)).await;
    let failed = |source| DatabaseError::Connect { address, source };
    let pool = pool.map_err(failed.clone())?;
    let version =
        pool.acquire().await.map_err(failed)?.server_version_num().unwrap_or(OLDEST_MAJOR * 10_000);
    if version < OLDEST_MAJOR * 10_000 {
        return Err(DatabaseError::TooOld { found: version / 10_000 });
    }
    Ok(pool)
}

/// Pool options with these limits.
pub(crate) fn options(settings: &PoolSettings) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(settings.max_connections)
        .min_connections(settings.min_connections)
        .acquire_timeout(settings.acquire_timeout)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for >= TEST_AFTER_IDLE {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
}

/// A pool beside another one, to the same database, for work that must not wait for the other's
/// connections or take them. Opens no connection before one is needed.
pub fn beside(pool: &PgPool, settings: &PoolSettings) -> PgPool {
    let session = settings.session(pool.connect_options().as_ref().clone());
    options(settings).connect_lazy_with(session)
}

/// Like [`connect`], for a URL as in `DATABASE_URL`.
pub async fn connect_url(url: &str, settings: PoolSettings) -> Result<PgPool, DatabaseError> {
    let options = PgConnectOptions::from_str(url).map_err(DatabaseError::Url)?;
    connect(options, settings).await
}

/// Begins a transaction, in a task of its own.
///
/// If the future of sqlx 0.9.0's `begin` is dropped halfway, the connection goes back to the pool
/// inside an open transaction (sqlx #4393), and its next user works in a transaction that nobody
/// commits. An HTTP handler is dropped whenever its client disconnects, so `begin` must run in a
/// task that is never dropped.
pub async fn begin(pool: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    begin_with(pool, "begin").await
}

/// Like [`begin`], with a statement of its own, such as `begin isolation level repeatable read read
/// only`.
pub async fn begin_with(
    pool: &PgPool,
    statement: &'static str,
) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let pool = pool.clone();
    detached(async move { pool.begin_with(statement).await }).await
}

/// Runs database work to its end in a task of its own. A caller that is dropped leaves no
/// connection in the middle of a statement.
pub(crate) async fn detached<T, E>(
    work: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<sqlx::Error> + Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "ends by itself, within the statement time-out")]
    let done = tokio::spawn(work).await;
    done.unwrap_or_else(|_| Err(sqlx::Error::WorkerCrashed.into()))
}

/// Brings the shared tables up to date with this program. Several nodes may run it at the same
/// time, and it may run again.
///
/// An attempt fails if it waits for a lock longer than the pool's `lock_timeout`, so that a
/// migration never makes other sessions queue behind it for long. It is retried for two minutes.
pub async fn migrate(pool: &PgPool) -> Result<(), DatabaseError> {
    run(&MIGRATIONS, pool).await
}

async fn run(migrations: &Migrator, pool: &PgPool) -> Result<(), DatabaseError> {
    let deadline = Instant::now() + MIGRATE_PATIENCE;
    loop {
        match attempt(migrations, pool).await {
            Err(error) if has_code(&error, LOCK_NOT_AVAILABLE) && Instant::now() < deadline => {
                tracing::info!(
                    "another session holds a lock that the migration needs, trying again"
                );
            }
            Err(error) if has_code(&error, NO_EXTENSION) => {
                return Err(DatabaseError::Extension(error));
            }
            Err(error) => return Err(DatabaseError::Migrate(error)),
            Ok(()) => return Ok(()),
        }
    }
}

/// One attempt, on a connection of its own: the migrator's advisory lock ends with that connection.
async fn attempt(migrations: &Migrator, pool: &PgPool) -> Result<(), MigrateError> {
    let options = pool.connect_options().as_ref().clone().options([
        ("statement_timeout", "0"),
        // Hides notices such as "already exists, skipping".
        ("client_min_messages", "warning"),
    ]);
    let mut connection: PgConnection = options.connect().await?;
    // The future of `run` cannot be held by a task (its `Acquire` bound is not general enough), so
    // this calls what `run` calls.
    migrations.run_direct(None, &mut connection, false).await?;
    connection.close().await?;
    Ok(())
}

fn has_code(error: &MigrateError, sought: &str) -> bool {
    let (MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _)) = error else {
        return false;
    };
    cause
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| code == sought)
}
