//! Compares the serving read models with the log.

use super::{
    PastError,
    fold::{End, Scratch},
    session,
};
use crate::{
    ReadModel,
    digest::{row_hash, tables},
    parked,
    version::VersionId,
};
use events::{Offset, Partition, StreamId, log::EventLog};
use serde::Serialize;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use std::collections::BTreeMap;

/// Largest number of differing rows that a report names for each table.
const NAMED: i64 = 10;

/// The comparison of a serving read model with a fold of the log at its checkpoints.
#[derive(Clone, Debug, Serialize)]
pub struct ModelReport {
    /// The read model.
    #[serde(serialize_with = "name")]
    pub model: ReadModel,
    /// The version that serves.
    pub version: u32,
    /// Whether it was compared. A version that another build wrote is not.
    pub compared: bool,
    /// Events folded.
    pub events: u64,
    /// Rows compared.
    pub rows: u64,
    /// Parked streams, which the comparison leaves out.
    pub parked: u64,
    /// The number of differing rows, named below or not, and of streams that could not be folded.
    pub found: u64,
    /// The first differing rows of each table.
    pub differences: Vec<UnmatchedRow>,
    /// Streams that cannot be applied although they are not parked, and why.
    pub refused: Vec<(StreamId, String)>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn name<S: serde::Serializer>(model: &ReadModel, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(model.as_str())
}

/// A row that only one of the two sides has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnmatchedRow {
    /// The table.
    pub table: String,
    /// Whether the row is in the read model (`true`) or in the fold of the log (`false`).
    pub stored: bool,
    /// The row, as text.
    pub row: String,
}

/// Compares every serving read model with a fold of the log at its checkpoints. Each is read in a
/// snapshot, so that nothing has to stop. The transaction is rolled back, so that nothing is left
/// behind.
///
/// # Errors
/// When the log or the database do not answer.
pub async fn audit(pool: &PgPool, log: &dyn EventLog) -> Result<Vec<ModelReport>, PastError> {
    let mut reports = Vec::new();
    for model in ReadModel::ALL {
        let mut connection = session(pool).await?;
        let mut tx = connection.begin_with("begin isolation level repeatable read").await?;
        if let Some(report) = compare(&mut tx, log, model).await? {
            reports.push(report);
        }
        tx.rollback().await?;
        connection.close().await?;
    }
    Ok(reports)
}

/// Returns `None` if no version serves yet.
async fn compare(
    connection: &mut PgConnection,
    log: &dyn EventLog,
    model: ReadModel,
) -> Result<Option<ModelReport>, PastError> {
    let serving: Option<(i32, String, i32)> = sqlx::query_as(
        "select version, fingerprint, pg_backend_pid() from control.version \
         where projection = $1 and serving",
    )
    .bind(model.as_str())
    .fetch_optional(&mut *connection)
    .await?;
    let Some((number, fingerprint, backend)) = serving else { return Ok(None) };
    let id = VersionId { model, number };
    let mut report = ModelReport {
        model,
        version: number.unsigned_abs(),
        compared: fingerprint == model.template().fingerprint(),
        events: 0,
        rows: 0,
        parked: 0,
        found: 0,
        differences: Vec::new(),
        refused: Vec::new(),
    };
    if !report.compared {
        return Ok(Some(report));
    }
    let parked = parked::firsts(connection, id).await?;
    report.parked = parked.len() as u64;
    let mut scratch = Scratch::create(connection, id, format!("audit_{model}_{backend}")).await?;
    for (partition, next) in checkpoints(connection, id).await? {
        let applied = |at: events::Position, record: &events::log::Record| {
            let first = parked.get(&(partition, record.stream));
            first.is_none_or(|first| at.offset < *first)
        };
        scratch.fold(connection, log, partition, End::Before(next), applied).await?;
    }
    report.events = scratch.events;
    report.refused = scratch.refused();
    report.found = report.refused.len() as u64;
    for table in tables(connection, &scratch.schema).await? {
        compare_table(connection, &id.schema(), &scratch.schema, table, &mut report).await?;
    }
    Ok(Some(report))
}

async fn checkpoints(
    connection: &mut PgConnection,
    id: VersionId,
) -> Result<BTreeMap<Partition, Offset>, sqlx::Error> {
    let rows: Vec<(i32, i64)> = sqlx::query_as(
        "select partition, next_offset from control.checkpoint \
         where projection = $1 and version = $2",
    )
    .bind(id.model.as_str())
    .bind(id.number)
    .fetch_all(connection)
    .await?;
    let at = |(partition, next): (i32, i64)| (Partition(partition.unsigned_abs()), Offset(next));
    Ok(rows.into_iter().map(at).collect())
}

/// Compares digests first, and rows only if the digests differ.
async fn compare_table(
    connection: &mut PgConnection,
    stored: &str,
    folded: &str,
    table: String,
    report: &mut ModelReport,
) -> Result<(), sqlx::Error> {
    let hash = row_hash(connection, folded, &table).await?;
    let digest = |schema: &str| {
        format!(
            "select count(*), coalesce(sum({hash}), 0)::text \
             from {schema}.{table} t"
        )
    };
    let one: (i64, String) =
        sqlx::query_as(AssertSqlSafe(digest(stored))).fetch_one(&mut *connection).await?;
    let other: (i64, String) =
        sqlx::query_as(AssertSqlSafe(digest(folded))).fetch_one(&mut *connection).await?;
    report.rows += one.0.unsigned_abs();
    if one == other {
        return Ok(());
    }
    for (is_stored, here, there) in [(true, stored, folded), (false, folded, stored)] {
        let rows = |schema: &str| format!("select t::text as line from {schema}.{table} t");
        let only = format!("{} except all {}", rows(here), rows(there));
        let named =
            format!("select line, count(*) over () from ({only}) d order by 1 limit {NAMED}");
        let found: Vec<(String, i64)> =
            sqlx::query_as(AssertSqlSafe(named)).fetch_all(&mut *connection).await?;
        report.found += found.first().map_or(0, |(_, all)| all.unsigned_abs());
        report.differences.extend(found.into_iter().map(|(row, _)| UnmatchedRow {
            table: table.clone(),
            stored: is_stored,
            row,
        }));
    }
    Ok(())
}
