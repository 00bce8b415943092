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
    set local client_min_messages = warning; set local maintenance_work_mem = '256MB'; \
    set local max_parallel_maintenance_workers = ";

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
    sqlx::raw_sql(AssertSqlSafe(settings.clone())).execute(&mut *tx).await?;
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
        // Another session cannot get at tables whose key is being made.
        let alone = version.manner.gentle || found == Indexes::None;
        let (ours, others) = dealt(template.rest(), alone);
        let beside = make_beside(pool, id, settings, others);
        let (ours, beside) = futures::join!(execute(&mut tx, id, &ours), beside);
        ours.and(beside)?;
    }
    sqlx::query("update control.version set indexes = $3 where projection = $1 and version = $2")
        .bind(id.model.as_str())
        .bind(id.number)
        .bind(wanted.as_str())
        .execute(&mut *tx)
        .await?;
    tx.commit().await
}

/// Indexes dealt out to two sessions, or to one: several processes read and sort for an index, but one alone writes it.
///
/// Those of the second session are there before it is noted that all are, and still are if it never is.
fn dealt(indexes: &str, alone: bool) -> (String, String) {
    let (mut ours, mut others) = (String::new(), String::new());
    let lines = indexes.lines().filter(|line| !line.starts_with("--"));
    let statements: String = lines.flat_map(|line| [line, "\n"]).collect();
    let indexes = statements.split_inclusive(';').filter(|index| !index.trim().is_empty());
    for (place, index) in indexes.enumerate() {
        let index = index.replace("create index ", "create index if not exists ");
        let to = if alone || place % 2 == 0 { &mut ours } else { &mut others };
        to.push_str(&index);
    }
    (ours, others)
}

async fn make_beside(
    pool: &PgPool,
    id: VersionId,
    settings: String,
    indexes: String,
) -> Result<(), sqlx::Error> {
    if indexes.is_empty() {
        return Ok(());
    }
    let mut tx = database::begin(pool).await?;
    sqlx::raw_sql(AssertSqlSafe(settings)).execute(&mut *tx).await?;
    execute(&mut tx, id, &indexes).await?;
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
    let made = database::detached(async move {
        make(&pool, &version, Indexes::Key).await?;
        make(&pool, &version, Indexes::All).await
    });
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ReadModel;

    #[test]
    fn every_index_is_dealt_to_one_session() {
        for model in ReadModel::ALL {
            let rest = model.template().rest();
            let (ours, others) = dealt(rest, false);
            let (all, none) = dealt(rest, true);
            let made = |sql: &str| sql.matches("create index if not exists ").count();
            let wanted = rest.matches("create index ").count();
            assert_eq!(made(&ours) + made(&others), wanted, "{model}");
            assert_eq!((made(&all), none.as_str()), (wanted, ""), "{model}");
            assert!(made(&ours) >= made(&others), "{model}");
            // Nothing but indexes: each can be there already.
            assert_eq!(all.matches(';').count(), wanted, "{model}");
        }
    }
}
