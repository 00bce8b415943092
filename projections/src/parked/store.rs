//! Parked streams in the database. Their rows change only under the lock of their checkpoint: by a
//! feed, which moves the checkpoint, or by [`retry`](super::retry).

use super::sieve::KeptBack;
use crate::{
    ReadModel, build::Build, facts::sql_partition, golden, lease::Share, version::VersionId,
};
use events::{Offset, Partition, StreamId, StreamKind, log::Cursor};
use rustc_hash::FxHashSet;
use sqlx::{PgConnection, PgPool};
use std::collections::BTreeMap;
use uuid::Uuid;

/// A statement on the row of one stream in a share, with the key bound as `$1` to `$5`.
macro_rules! of_row {
    ($query:path, $statement:literal, $share:expr, $stream:expr) => {{
        let ((id, partition), stream): (Share, StreamId) = ($share, $stream);
        $query(concat!(
            $statement,
            " where projection = $1 and version = $2 and partition = $3 and stream_kind = $4 \
             and stream_id = $5"
        ))
        .bind(id.model.as_str())
        .bind(id.number)
        .bind(sql_partition(partition))
        .bind(i16::from(stream.kind as u8))
        .bind(stream.id)
    }};
}

/// The parked streams, by share.
pub(crate) async fn load(
    pool: &PgPool,
) -> Result<BTreeMap<Share, FxHashSet<StreamId>>, sqlx::Error> {
    let rows: Vec<(String, i32, i32, i16, Uuid)> = sqlx::query_as(
        "select projection, version, partition, stream_kind, stream_id from control.parked",
    )
    .fetch_all(pool)
    .await?;
    let mut parked: BTreeMap<Share, FxHashSet<StreamId>> = BTreeMap::new();
    for (name, number, partition, kind, id) in rows {
        let (Ok(model), Some(stream)) = (name.parse(), stream(kind, id)) else { continue };
        let share = (VersionId { model, number }, Partition(partition.unsigned_abs()));
        parked.entry(share).or_default().insert(stream);
    }
    Ok(parked)
}

/// The stream of a row.
pub(super) fn stream(kind: i16, id: Uuid) -> Option<StreamId> {
    let kind = StreamKind::from_u8(u8::try_from(kind).ok()?)?;
    Some(StreamId { kind, id })
}

/// Records the events kept back. `read_from` is where the checkpoint was before. Returns `false` if
/// the stream was parked and no longer is: then the events must be applied after all, and the
/// caller rolls back.
pub(crate) async fn record(
    connection: &mut PgConnection,
    kept_back: &KeptBack,
    read_from: Cursor,
) -> Result<bool, sqlx::Error> {
    let KeptBack { share, stream, version, first, last, events, .. } = *kept_back;
    let Some(reason) = &kept_back.reason else {
        let noted = of_row!(
            sqlx::query,
            "update control.parked set events = events + $6, last_offset = $7, last_time = $8",
            share,
            stream
        );
        let noted =
            noted.bind(events).bind(last.0).bind(kept_back.last_time).execute(connection).await?;
        return Ok(noted.rows_affected() == 1);
    };
    sqlx::query(
        "insert into control.parked (projection, version, partition, stream_kind, stream_id, \
         stream_version, first_offset, read_offset, read_term, last_offset, events, reason, \
         first_time, last_time) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
    )
    .bind(share.0.model.as_str())
    .bind(share.0.number)
    .bind(sql_partition(share.1))
    .bind(i16::from(stream.kind as u8))
    .bind(stream.id)
    .bind(i64::try_from(version).unwrap_or(i64::MAX))
    .bind(first.0)
    .bind(read_from.offset.0)
    .bind(i64::try_from(read_from.term).unwrap_or(i64::MAX))
    .bind(last.0)
    .bind(events)
    .bind(reason)
    .bind(kept_back.first_time)
    .bind(kept_back.last_time)
    .execute(&mut *connection)
    .await?;
    count(connection, share, 1).await?;
    Ok(true)
}

/// Changes the number of parked streams in the checkpoint.
pub(super) async fn count(
    connection: &mut PgConnection,
    (id, partition): Share,
    by: i32,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update control.checkpoint set parked = parked + $4 \
         where projection = $1 and version = $2 and partition = $3",
    )
    .bind(id.model.as_str())
    .bind(id.number)
    .bind(sql_partition(partition))
    .bind(by)
    .execute(connection)
    .await?;
    Ok(())
}

/// The number of parked streams and of their events, by version.
pub(crate) async fn counts(pool: &PgPool) -> Result<BTreeMap<VersionId, (i64, i64)>, sqlx::Error> {
    let rows: Vec<(String, i32, i64, i64)> = sqlx::query_as(
        "select projection, version, count(*), sum(events)::bigint from control.parked \
         group by projection, version",
    )
    .fetch_all(pool)
    .await?;
    let count = |(name, number, streams, events): (String, i32, i64, i64)| {
        Some((VersionId { model: name.parse().ok()?, number }, (streams, events)))
    };
    Ok(rows.into_iter().filter_map(count).collect())
}

/// Whether `to` keeps back a stream that `from` shows, unless an operator has accepted that.
pub(crate) async fn keeps_back(
    connection: &mut PgConnection,
    from: VersionId,
    to: VersionId,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select exists (select from control.parked t \
         join control.version v using (projection, version) \
         left join control.parked f on f.projection = t.projection and f.version = $2 \
         and f.partition = t.partition and f.stream_kind = t.stream_kind \
         and f.stream_id = t.stream_id \
         where t.projection = $1 and t.version = $3 and f.stream_id is null \
         and not v.with_parked)",
    )
    .bind(from.model.as_str())
    .bind(from.number)
    .bind(to.number)
    .fetch_one(connection)
    .await
}

/// What a retry needs to know of a parked stream.
pub(super) struct RetryRow {
    pub share: Share,
    pub first: Offset,
    pub read_from: Cursor,
    pub last: Offset,
}

/// Every version that has parked this stream, and whether this build feeds it.
pub(super) async fn of_stream(
    pool: &PgPool,
    stream: StreamId,
) -> Result<Vec<(Share, bool)>, sqlx::Error> {
    let standings = golden::known(pool, Build::Ours, &ReadModel::ALL).await?;
    let rows: Vec<(String, i32, i32)> = sqlx::query_as(
        "select projection, version, partition from control.parked \
         where stream_kind = $1 and stream_id = $2 order by projection, version",
    )
    .bind(i16::from(stream.kind as u8))
    .bind(stream.id)
    .fetch_all(pool)
    .await?;
    let share = |(name, number, partition): (String, i32, i32)| {
        let id = VersionId { model: name.parse().ok()?, number };
        let ours = standings.get(&id).is_some_and(|standing| standing.why.is_none());
        Some(((id, Partition(partition.unsigned_abs())), ours))
    };
    Ok(rows.into_iter().filter_map(share).collect())
}

/// The row of a parked stream; `None` if the stream is not parked (any more).
pub(super) async fn row(
    connection: &mut PgConnection,
    share: Share,
    stream: StreamId,
) -> Result<Option<RetryRow>, sqlx::Error> {
    let row = of_row!(
        sqlx::query_as,
        "select first_offset, read_offset, read_term, last_offset from control.parked",
        share,
        stream
    );
    let row: Option<(i64, i64, i64, i64)> = row.fetch_optional(connection).await?;
    Ok(row.map(|(first, read, term, last)| RetryRow {
        share,
        first: Offset(first),
        read_from: Cursor { offset: Offset(read), term: term.unsigned_abs() },
        last: Offset(last),
    }))
}

/// Records that the first `applied` events are applied and the next one is still refused.
pub(super) async fn still_parked(
    connection: &mut PgConnection,
    kept_back: &KeptBack,
    applied: usize,
) -> Result<(), sqlx::Error> {
    of_row!(
        sqlx::query,
        "update control.parked set stream_version = $6, first_offset = $7, first_time = $8, \
         reason = $9, events = events - $10, tries = tries + 1",
        kept_back.share,
        kept_back.stream
    )
    .bind(i64::try_from(kept_back.version).unwrap_or(i64::MAX))
    .bind(kept_back.first.0)
    .bind(kept_back.first_time)
    .bind(kept_back.reason.as_deref().unwrap_or_default())
    .bind(i64::try_from(applied).unwrap_or(i64::MAX))
    .execute(connection)
    .await?;
    Ok(())
}

/// Records that the first `applied` events are applied, and that the next piece begins at `next`.
pub(super) async fn go_on_from(
    connection: &mut PgConnection,
    share: Share,
    stream: StreamId,
    next: Cursor,
    applied: usize,
) -> Result<(), sqlx::Error> {
    of_row!(
        sqlx::query,
        "update control.parked set stream_version = stream_version + $8, first_offset = $6, \
         read_offset = $6, read_term = $7, events = events - $8",
        share,
        stream
    )
    .bind(next.offset.0)
    .bind(i64::try_from(next.term).unwrap_or(i64::MAX))
    .bind(i64::try_from(applied).unwrap_or(i64::MAX))
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes a stream from the parked ones.
pub(super) async fn unpark(
    connection: &mut PgConnection,
    share: Share,
    stream: StreamId,
) -> Result<(), sqlx::Error> {
    of_row!(sqlx::query, "delete from control.parked", share, stream)
        .execute(&mut *connection)
        .await?;
    count(connection, share, -1).await
}

/// The offset from which each parked stream of a version is kept back.
pub(crate) async fn firsts(
    connection: &mut PgConnection,
    id: VersionId,
) -> Result<BTreeMap<(Partition, StreamId), Offset>, sqlx::Error> {
    let rows: Vec<(i32, i16, Uuid, i64)> = sqlx::query_as(
        "select partition, stream_kind, stream_id, first_offset from control.parked \
         where projection = $1 and version = $2",
    )
    .bind(id.model.as_str())
    .bind(id.number)
    .fetch_all(connection)
    .await?;
    let first = |(partition, kind, id, first): (i32, i16, Uuid, i64)| {
        Some(((Partition(partition.unsigned_abs()), stream(kind, id)?), Offset(first)))
    };
    Ok(rows.into_iter().filter_map(first).collect())
}
