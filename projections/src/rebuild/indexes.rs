//! Makes the indexes of a version that was filled without any.

use crate::{
    database,
    version::{Version, VersionId},
};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use std::{error::Error, sync::Arc};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Which indexes a version has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Indexes {
    /// None: rows can only be added.
    None,
    /// The key: rows can be found by it.
    Key,
    /// All that queries need.
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

/// No statement time-out, because the time depends on the size of the table; more memory than usual
/// for sorting. Only rebuilds wait for these tables.
const SETTINGS: &str = "set local statement_timeout = 0; set local lock_timeout = '60s'; \
    set local client_min_messages = warning; set local maintenance_work_mem = '256MB'; \
    set local max_parallel_maintenance_workers = ";

/// A quarter of the usual sample is enough for the plans of the queries. Autovacuum takes the usual
/// sample soon after.
const SAMPLE: &str = "set local default_statistics_target = 25";

/// Makes the missing indexes, up to `wanted`. Does nothing if they exist or the version was
/// dropped.
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
        // While the key is being made, another session cannot use the table.
        let one_session = version.manner.gentle || found == Indexes::None;
        let (ours, others) = dealt(template.rest(), one_session);
        let beside = make_in_second_session(pool, id, settings, others);
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

/// Deals the indexes out to two sessions, or to one if `one_session` is set. Building an index
/// reads and sorts in parallel, but only one process writes it, so two sessions are faster.
///
/// The second session commits before the version is marked as having all indexes. If that mark is
/// never written, its indexes still exist; `if not exists` skips them the next time.
fn dealt(indexes: &str, one_session: bool) -> (String, String) {
    let (mut ours, mut others) = (String::new(), String::new());
    let lines = indexes.lines().filter(|line| !line.starts_with("--"));
    let statements: String = lines.flat_map(|line| [line, "\n"]).collect();
    let indexes = statements.split_inclusive(';').filter(|index| !index.trim().is_empty());
    for (place, index) in indexes.enumerate() {
        let index = index.replace("create index ", "create index if not exists ");
        let to = if one_session || place % 2 == 0 { &mut ours } else { &mut others };
        to.push_str(&index);
    }
    (ours, others)
}

async fn make_in_second_session(
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

/// Makes all indexes of a version, and then wakes the projector. If this fails, the projector
/// starts it again.
pub(crate) async fn complete(
    pool: PgPool,
    version: Arc<Version>,
    stop: CancellationToken,
    done: Arc<Notify>,
) {
    let id = version.id;
    // In a task of its own, so that no connection is dropped in the middle of making an index.
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
        tracing::warn!(
            version = %id, error,
            "the indexes of a read model cannot be made, trying again"
        );
        return;
    }
    done.notify_one();
}

/// Analyses the tables, so that the first queries are planned well. It runs in a task of its own,
/// and may fail, because nothing depends on it.
pub(crate) async fn analyze(pool: &PgPool, id: VersionId) {
    let pool = pool.clone();
    if let Err(error) = database::detached(async move { analyze_tables(&pool, id).await }).await {
        let error = &error as &dyn Error;
        tracing::warn!(version = %id, error, "the tables of a read model cannot be analysed");
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
            // Every statement makes an index, so that `if not exists` can be added to each.
            assert_eq!(all.matches(';').count(), wanted, "{model}");
        }
    }
}
