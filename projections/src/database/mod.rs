//! The `PostgreSQL` side of the read models: pools with bounded sessions, transactions that survive a
//! caller who goes away, the shared migrations, and the private cluster of [`local`].

use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool, Postgres, Transaction};
use tokio::time::Instant;

pub mod local;

/// What all read models share. The sub-folders hold templates of single projections: the macro takes
/// only the files at the top.
static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// The oldest major version of `PostgreSQL` the SQL of this crate is written for.
pub const OLDEST_MAJOR: u32 = 15;

/// How long [`migrate`] goes on asking for locks others hold.
const MIGRATE_PATIENCE: Duration = Duration::from_mins(2);

/// An idle connection is tested before use only after this rest: a test of each would cost every query
/// a round trip.
const TEST_AFTER_IDLE: Duration = Duration::from_secs(5);

/// SQLSTATE that the migration of the extension gives its errors.
const NO_EXTENSION: &str = "OL001";

/// SQLSTATE of a lock that was not to be had within `lock_timeout`.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// Why the read models' database cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// The connection URL is malformed. It is not repeated: it holds a password.
    #[error("the database url is not valid")]
    Url(#[source] sqlx::Error),
    /// No connection could be opened.
    #[error("cannot connect to the database at {address}")]
    Connect {
        /// Host and port, without credentials.
        address: String,
        /// What the driver said.
        #[source]
        source: sqlx::Error,
    },
    /// The server is older than [`OLDEST_MAJOR`].
    #[error("the database server is PostgreSQL {found}, at least {OLDEST_MAJOR} is needed")]
    TooOld {
        /// Its major version.
        found: u32,
    },
    /// The extension that search needs is not there and cannot be made.
    #[error(
        "search needs the extension pg_trgm, which cannot be made here; let an administrator run \
         `create extension pg_trgm with schema public` in this database"
    )]
    Extension(#[source] MigrateError),
    /// A migration failed, or the database was migrated by other code.
    #[error("cannot migrate the database")]
    Migrate(#[source] MigrateError),
}

/// The bounds of a pool and of each session in it.
#[derive(Debug, Clone)]
pub struct PoolSettings {
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
    /// Most connections at once.
    pub max_connections: u32,
    /// Connections kept open while idle.
    pub min_connections: u32,
    /// How long a caller waits for a connection, and [`connect`] for the server to come up.
    pub acquire_timeout: Duration,
    /// Longest single statement; `None` for work that is long by nature, such as a rebuild.
    pub statement_timeout: Option<Duration>,
    /// Longest wait for a lock: a stalled one would stall everybody queued behind it.
    pub lock_timeout: Duration,
    /// A session that sits idle in a transaction for longer is ended by the server.
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
    /// The settings as parameters of the session: they hold from its first statement on and cost no
    /// round trip.
    fn session(&self, options: PgConnectOptions) -> PgConnectOptions {
        let statement = self.statement_timeout.unwrap_or(Duration::ZERO);
        options.application_name(&self.application_name).options([
            ("statement_timeout", statement.as_millis()),
            ("lock_timeout", self.lock_timeout.as_millis()),
            ("idle_in_transaction_session_timeout", self.idle_in_transaction_timeout.as_millis()),
        ])
    }
}

/// Opens a pool and proves it with one connection. A server that is still starting is waited for,
/// up to `acquire_timeout`.
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

/// The bounds of a pool.
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

/// [`connect`] for a URL, as in `DATABASE_URL`.
pub async fn connect_url(url: &str, settings: PoolSettings) -> Result<PgPool, DatabaseError> {
    let options = PgConnectOptions::from_str(url).map_err(DatabaseError::Url)?;
    connect(options, settings).await
}

/// Begins a transaction, in a task of its own.
///
/// sqlx 0.9.0 gives a connection back to the pool inside an open transaction when the future of its
/// `begin` is dropped halfway (sqlx #4393), and the next borrower then works in a transaction nobody
/// commits. An HTTP handler is dropped whenever its client goes away, so only the task may wait.
pub async fn begin(pool: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    begin_with(pool, "begin").await
}

/// [`begin`] with a statement of the caller's, such as
/// `begin isolation level repeatable read read only`.
pub async fn begin_with(
    pool: &PgPool,
    statement: &'static str,
) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let pool = pool.clone();
    detached(async move { pool.begin_with(statement).await }).await
}

/// Runs database work in a task of its own, to its end: a caller who goes away leaves no connection in
/// the middle of a statement.
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

/// Brings the shared tables up to what this program needs. Safe to run on many nodes at once, and again.
///
/// A lock held by others for longer than the pool's `lock_timeout` ends an attempt, so that a migration
/// never queues in front of everybody else for long; it is then tried anew, for two minutes.
pub async fn migrate(pool: &PgPool) -> Result<(), DatabaseError> {
    run(&MIGRATIONS, pool).await
}

async fn run(migrations: &Migrator, pool: &PgPool) -> Result<(), DatabaseError> {
    let deadline = Instant::now() + MIGRATE_PATIENCE;
    loop {
        match attempt(migrations, pool).await {
            Err(error) if has_code(&error, LOCK_NOT_AVAILABLE) && Instant::now() < deadline => {
                tracing::info!("a lock held the migration up, trying again");
            }
            Err(error) if has_code(&error, NO_EXTENSION) => {
                return Err(DatabaseError::Extension(error));
            }
            Err(error) => return Err(DatabaseError::Migrate(error)),
            Ok(()) => return Ok(()),
        }
    }
}

/// One attempt on a connection of its own: the advisory lock of a failed attempt ends with it.
async fn attempt(migrations: &Migrator, pool: &PgPool) -> Result<(), MigrateError> {
    let options = pool.connect_options().as_ref().clone().options([
        ("statement_timeout", "0"),
        // "already exists, skipping" is no news.
        ("client_min_messages", "warning"),
    ]);
    let mut connection: PgConnection = options.connect().await?;
    // `run` is no future a task may hold (its `Acquire` is not general enough); this is what it calls.
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
