//! Rebuilds the rows of one stream.

use super::{
    PastError,
    fold::{End, Scratch},
    session,
};
use crate::{
    ReadModel, build::Build, digest::tables, facts::sql_partition, golden, parked,
    version::VersionId,
};
use events::{
    Offset, Position, StreamId, StreamKind,
    log::{Cursor, EventLog, Record},
    partitioner::partition_of,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

/// The result of rebuilding the rows of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// The version that serves.
    pub version: u32,
    /// The number of events folded.
    pub events: u64,
    /// The number of rows before, and after.
    pub rows: (u64, u64),
}

/// The condition for the rows of one stream, for read models where rows belong to a single stream.
/// `$1` is the stream's id, `$2` the number of its kind.
fn rows_of(model: ReadModel, kind: StreamKind) -> Option<&'static str> {
    match (model, kind) {
        (ReadModel::Orders, StreamKind::Order) => Some("order_id = $1 and $2 is not null"),
        (ReadModel::Products, StreamKind::Product) => Some("product_id = $1 and $2 is not null"),
        (ReadModel::Customers, StreamKind::Customer) => Some("customer_id = $1 and $2 is not null"),
        (ReadModel::History, _) => Some("stream_id = $1 and stream_kind = $2"),
        _ => None,
    }
}

/// Rebuilds the rows of one stream in the serving version of `model`, in one transaction.
///
/// The stream is first folded into scratch tables while the version is fed. Then the checkpoint is
/// locked, which stops the feed of this partition until the remaining events are folded and the
/// rows are exchanged.
///
/// # Errors
/// When the stream is parked or cannot be applied, or when `model` has no rows that belong to this
/// stream alone. Nothing is changed then.
pub async fn rebuild_stream(
    pool: &PgPool,
    log: &dyn EventLog,
    model: ReadModel,
    stream: StreamId,
) -> Result<Rebuilt, PastError> {
    let rows = rows_of(model, stream.kind).ok_or(PastError::NotOfStream { model, stream })?;
    let mut connection = session(pool).await?;
    let mut tx = connection.begin().await?;
    let (id, backend) = serving(pool, &mut tx, model).await?;
    let partition = partition_of(stream, log.partitions());
    let schema = format!("stream_{model}_{backend}");
    let mut scratch = Scratch::create(&mut tx, id, schema).await?;
    let (mut cursor, mut folded) = (Cursor::START, Offset::START);
    for lock in [false, true] {
        let next = checkpoint(&mut tx, id, sql_partition(partition), lock).await?;
        let new = |at: Position, record: &Record| record.stream == stream && at.offset >= folded;
        let end = End::Before(next);
        let reached = scratch.fold_on(&mut tx, log, partition, cursor, end, new).await?;
        if reached.next < next {
            return Err(PastError::OtherLog);
        }
        (cursor, folded) = (reached.resume, next);
    }
    if parked::firsts(&mut tx, id).await?.contains_key(&(partition, stream)) {
        return Err(PastError::Parked(stream));
    }
    if let Some((stream, reason)) = scratch.refused().into_iter().next() {
        return Err(PastError::Refused { stream, reason });
    }
    let exchanged = exchange(&mut tx, id, &scratch.schema, rows, stream).await?;
    let drop = format!("drop schema {} cascade", scratch.schema);
    sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut *tx).await?;
    tx.commit().await?;
    let version = id.number.unsigned_abs();
    Ok(Rebuilt { version, events: scratch.events, rows: exchanged })
}

async fn serving(
    pool: &PgPool,
    connection: &mut PgConnection,
    model: ReadModel,
) -> Result<(VersionId, i32), PastError> {
    let (number, backend): (i32, i32) = sqlx::query_as(
        "select version, pg_backend_pid() from control.version where projection = $1 and serving",
    )
    .bind(model.as_str())
    .fetch_one(connection)
    .await?;
    let id = VersionId { model, number };
    let standings = golden::known(pool, Build::Ours, &[model]).await?;
    if standings.get(&id).is_none_or(|standing| standing.why.is_some()) {
        return Err(PastError::Stale(model));
    }
    Ok((id, backend))
}

/// How far the serving version has read. The lock keeps the version from being fed further or
/// losing its place as the serving one.
async fn checkpoint(
    connection: &mut PgConnection,
    id: VersionId,
    partition: i32,
    lock: bool,
) -> Result<Offset, sqlx::Error> {
    let query = if lock {
        "select next_offset from control.checkpoint where projection = $1 and version = $2 \
         and partition = $3 and serving for update"
    } else {
        "select next_offset from control.checkpoint where projection = $1 and version = $2 \
         and partition = $3 and serving"
    };
    let next = sqlx::query_scalar(query).bind(id.model.as_str()).bind(id.number).bind(partition);
    next.fetch_one(connection).await.map(Offset)
}

/// Replaces the rows of the stream by those of the scratch tables. Returns the number of both.
async fn exchange(
    connection: &mut PgConnection,
    id: VersionId,
    scratch: &str,
    rows: &str,
    stream: StreamId,
) -> Result<(u64, u64), sqlx::Error> {
    let (mut before, mut after) = (0, 0);
    for table in tables(connection, scratch).await? {
        let delete = format!("delete from {}.{table} where {rows}", id.schema());
        let deleted = sqlx::query(AssertSqlSafe(delete))
            .bind(stream.id)
            .bind(i16::from(stream.kind as u8))
            .execute(&mut *connection)
            .await?;
        before += deleted.rows_affected();
        let insert = format!("insert into {}.{table} select * from {scratch}.{table}", id.schema());
        after +=
            sqlx::query(AssertSqlSafe(insert)).execute(&mut *connection).await?.rows_affected();
    }
    Ok((before, after))
}
