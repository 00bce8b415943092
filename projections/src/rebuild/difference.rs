//! Finds the rows that differ between two versions.

use crate::{digest::row_hash, version::VersionId};
use events::Position;
use futures::{Stream, TryStreamExt};
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, PgConnection};
use std::{cmp::Ordering, pin::Pin};

/// How many differing rows are reported.
pub(crate) const SHOWN: usize = 5;

/// A row that differs between a new version and the serving one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The table.
    pub table: String,
    /// The partition of the log that the row belongs to.
    pub partition: u32,
    /// The row's key as text; a key of several columns is in brackets.
    pub key: String,
    /// The row in the serving version, as JSON; `None` if it is missing there.
    pub serving: Option<String>,
    /// The row in the new version, as JSON; `None` if it is missing there.
    pub rebuilt: Option<String>,
    /// The position of the event that made the rows differ, if it was found.
    #[serde(default)]
    pub position: Option<Position>,
}

/// The columns of a table's primary key, as one expression.
async fn key(
    connection: &mut PgConnection,
    id: VersionId,
    table: &str,
) -> Result<String, sqlx::Error> {
    let columns: Vec<String> = sqlx::query_scalar(
        "select quote_ident(attname) from pg_index i \
         join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey) \
         where i.indrelid = to_regclass($1) and i.indisprimary \
         order by array_position(i.indkey::smallint[], a.attnum)",
    )
    .bind(format!("{}.{table}", id.schema()))
    .fetch_all(connection)
    .await?;
    Ok(match &columns[..] {
        // Without a key, the whole row serves as one.
        [] => "t".to_owned(),
        [one] => one.clone(),
        several => format!("row({})", several.join(", ")),
    })
}

type Side<'a> = (&'a mut PgConnection, VersionId);
type Hashes<'a> = Pin<Box<dyn Stream<Item = Result<(String, i64), sqlx::Error>> + Send + 'a>>;

/// The first differing rows of a table and partition, in the order of the key. Both sides are
/// streamed, so that they need not fit in memory.
pub(crate) async fn first(
    (serving, rebuilt): (Side<'_>, Side<'_>),
    table: &str,
    partition: i32,
) -> Result<Vec<Difference>, sqlx::Error> {
    let key = key(rebuilt.0, rebuilt.1, table).await?;
    // The hash covers each side's own columns, because another build may have made other ones.
    let here = row_hash(serving.0, &serving.1.schema(), table).await?;
    let there = row_hash(rebuilt.0, &rebuilt.1.schema(), table).await?;
    let sql = |id: VersionId, hash: &str| {
        format!(
            "select ({key})::text collate \"C\" as k, {hash} \
             from {}.{table} t where partition = $1 order by k",
            id.schema()
        )
    };
    let ours = hashes(&mut *serving.0, sql(serving.1, &here), partition);
    let theirs = hashes(&mut *rebuilt.0, sql(rebuilt.1, &there), partition);
    let keys = differing(ours, theirs).await?;
    let mut found = Vec::new();
    for k in keys {
        let row = |id: VersionId| {
            format!(
                "select to_jsonb(t)::text from {}.{table} t where ({key})::text = $1",
                id.schema()
            )
        };
        let ours = sqlx::query_scalar(AssertSqlSafe(row(serving.1))).bind(&k);
        let theirs = sqlx::query_scalar(AssertSqlSafe(row(rebuilt.1))).bind(&k);
        found.push(Difference {
            table: table.to_owned(),
            partition: partition.unsigned_abs(),
            serving: ours.fetch_optional(&mut *serving.0).await?,
            rebuilt: theirs.fetch_optional(&mut *rebuilt.0).await?,
            key: k,
            position: None,
        });
    }
    Ok(found)
}

fn hashes(connection: &mut PgConnection, sql: String, partition: i32) -> Hashes<'_> {
    Box::pin(sqlx::query_as(AssertSqlSafe(sql)).bind(partition).fetch(connection))
}

/// The first keys whose hashes differ between the two sides.
async fn differing(mut one: Hashes<'_>, mut other: Hashes<'_>) -> Result<Vec<String>, sqlx::Error> {
    let (mut a, mut b) = (one.try_next().await?, other.try_next().await?);
    let mut keys = Vec::new();
    while keys.len() < SHOWN {
        let order = match (&a, &b) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((one, _)), Some((other, _))) => one.cmp(other),
        };
        let same = order.is_eq() && a == b;
        let key = if order.is_le() { &a } else { &b };
        keys.extend(key.as_ref().filter(|_| !same).map(|(key, _)| key.clone()));
        if order.is_le() {
            a = one.try_next().await?;
        }
        if order.is_ge() {
            b = other.try_next().await?;
        }
    }
    Ok(keys)
}
