//! The indexes of a version that is filled without any.

use crate::{
    database,
    version::{Version, VersionId},
};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use std::{error::Error, sync::Arc};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How far the indexes of a version are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Indexes {
    /// None: rows can only be added.
    None,
    /// Rows can be found by their key.
    Key,
    /// All, as queries need them.
    All,
}

impl Indexes {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Key => "key",
            Self::All => "all",
        }
    }

    pub fn named(name: &str) -> Self {
        match name {
            "none" => Self::None,
            "key" => Self::Key,
            _ => Self::All,
        }
    }
}

/// No bound on what takes as long as the table is large; sorts get more memory than others, once. Nobody waits for these
/// tables but those who fill them.
const SETTINGS: &str = "set local statement_timeout = 0; set local lock_timeout = '60s'; \
    set local maintenance_work_mem = '256MB'; set local max_parallel_maintenance_workers = ";

/// A quarter of the usual sample finds what every table's queries depend on; the server's own analyzing takes the usual one
/// soon after.
const SAMPLE: &str = "set local default_statistics_target = 25";

/// Makes the indexes that are missing, up to `wanted`; nothing if they are there, or the version is gone.
pub(crate) async fn make(
    pool: &PgPool,
    version: &Version,
    wanted: Indexes,
) -> Result<(), sqlx::Error> {
    let id = version.id;
    let settings = format!("{SETTINGS}{}", if version.manner.gentle { 0 } else { 2 });
    let mut tx = database::begin(pool).await?;
    sqlx::raw_sql(AssertSqlSafe(settings)).execute(&mut *tx).await?;
    let found: Option<String> = sqlx::query_scalar(
        "select indexes from control.version where projection = $1 and version = $2 for update",
    )
    .bind(id.model.as_str())
    .bind(id.number)
    .fetch_optional(&mut *tx)
    .await?;
    let Some(found) = found.map(|name| Indexes::named(&name)).filter(|found| *found < wanted)
    else {
        return Ok(());
    };
    let template = id.model.template();
    if found == Indexes::None {
        execute(&mut tx, id, template.key()).await?;
    }
    if wanted == Indexes::All {
        execute(&mut tx, id, template.rest()).await?;
    }
    sqlx::query("update control.version set indexes = $3 where projection = $1 and version = $2")
        .bind(id.model.as_str())
        .bind(id.number)
        .bind(wanted.as_str())
        .execute(&mut *tx)
        .await?;
    tx.commit().await
}

async fn execute(
    connection: &mut PgConnection,
    id: VersionId,
    sql: &str,
) -> Result<(), sqlx::Error> {
    let schema = id.schema();
    let sql = format!("set local search_path to {schema}; {sql} set local search_path to default;");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(())
}

/// Makes all indexes of a version, and then wakes who waits for it. What fails is tried again by who began it.
pub(crate) async fn complete(
    pool: PgPool,
    version: Arc<Version>,
    stop: CancellationToken,
    done: Arc<Notify>,
) {
    let id = version.id;
    // In a task of its own: an index that is half made holds its connection up.
    let made = database::detached(async move { make(&pool, &version, Indexes::All).await });
    let made = tokio::select! {
        made = made => made,
        () = stop.cancelled() => return,
    };
    if let Err(error) = made {
        let error = &error as &dyn Error;
        tracing::warn!(version = %id, error, "the indexes of a read model are not made yet");
        return;
    }
    done.notify_one();
}

/// So that queries are planned well from the first one on. In a task of its own, like what makes the indexes; nothing depends
/// on it, so it may fail.
pub(crate) async fn analyze(pool: &PgPool, id: VersionId) {
    let pool = pool.clone();
    if let Err(error) = database::detached(async move { analyze_tables(&pool, id).await }).await {
        let error = &error as &dyn Error;
        tracing::warn!(version = %id, error, "the tables of a read model are not analysed");
    }
}

async fn analyze_tables(pool: &PgPool, id: VersionId) -> Result<(), sqlx::Error> {
    let tables: Vec<String> = sqlx::query_scalar(
        "select format('%I.%I', schemaname, tablename) from pg_tables where schemaname = $1",
    )
    .bind(id.schema())
    .fetch_all(pool)
    .await?;
    if tables.is_empty() {
        return Ok(());
    }
    let analyze = format!("{SAMPLE}; analyze {}", tables.join(", "));
    sqlx::raw_sql(AssertSqlSafe(analyze)).execute(pool).await?;
    Ok(())
}
