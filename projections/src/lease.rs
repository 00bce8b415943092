//! Leases: one process at a time feeds a partition of a version. Leases only keep processes from
//! competing. The checkpoint's fence guarantees that no event is applied twice.

use crate::{facts::sql_partition, version::VersionId};
use events::Partition;
use sqlx::PgPool;
use std::{collections::BTreeSet, time::Duration};
use uuid::Uuid;

/// A partition of a version.
pub(crate) type Share = (VersionId, Partition);

/// Takes or renews the leases in `wanted` that are free or already held by `holder`. Returns the
/// ones it holds now.
pub(crate) async fn acquire(
    pool: &PgPool,
    holder: Uuid,
    wanted: &[Share],
    duration: Duration,
) -> Result<BTreeSet<Share>, sqlx::Error> {
    let names: Vec<_> = wanted.iter().map(|(id, _)| id.model.as_str()).collect();
    let numbers: Vec<_> = wanted.iter().map(|(id, _)| id.number).collect();
    let partitions: Vec<_> = wanted.iter().map(|(_, at)| sql_partition(*at)).collect();
    let held: Vec<(String, i32, i32)> = sqlx::query_as(
        "insert into control.lease as l (projection, version, partition, holder, until) \
         select u.*, $4, clock_timestamp() + $5 * interval '1 second' \
         from unnest($1::text[], $2::integer[], $3::integer[]) as u \
         on conflict (projection, version, partition) do update \
         set holder = excluded.holder, until = excluded.until \
         where l.holder = excluded.holder or l.until < clock_timestamp() \
         returning l.projection, l.version, l.partition",
    )
    .bind(names)
    .bind(numbers)
    .bind(partitions)
    .bind(holder)
    .bind(duration.as_secs_f64())
    .fetch_all(pool)
    .await?;
    let share = |(name, number, partition): (String, i32, i32)| {
        let id = VersionId { model: name.parse().ok()?, number };
        Some((id, Partition(partition.unsigned_abs())))
    };
    Ok(held.into_iter().filter_map(share).collect())
}

/// Releases all leases of `holder`.
pub(crate) async fn release(pool: &PgPool, holder: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query("delete from control.lease where holder = $1").bind(holder).execute(pool).await?;
    Ok(())
}
