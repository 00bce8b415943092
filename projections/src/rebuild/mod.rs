//! Rebuilds of read models beside the serving version, and the other operations on versions.
//!
//! A rebuild makes a new version that starts at the beginning of the log. A projector feeds it, and
//! lets it serve once it has applied everything that the serving version has. The previous version
//! is still fed until an operator drops it, so that a rollback is instant.

pub(crate) mod applied;
pub(crate) mod bulk;
mod culprit;
mod difference;
mod filling;
pub(crate) mod gather;
pub(crate) mod indexes;
mod status;
pub(crate) mod switch;
pub(crate) mod upgrade;
pub(crate) mod verify;

pub use difference::Difference;
pub use status::{PartitionStatus, RebuildStatus, State, StatusError, VersionStatus, status};

use crate::{
    ReadModel, database, golden, parked,
    progress::rest,
    version::{self, VersionId},
};
use sqlx::{FromRow, PgConnection, PgPool};
use std::time::Duration;

/// Why an operation on versions was refused.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// A version is being built already.
    #[error("a rebuild of {0} is under way")]
    UnderWay(ReadModel),
    /// No version is being built.
    #[error("no rebuild of {0} is under way")]
    NotUnderWay(ReadModel),
    /// There is only the serving version.
    #[error("{0} has no other version than the serving one")]
    NoOther(ReadModel),
    /// No version serves, so there is nothing to build another version beside.
    #[error("no version of {0} serves yet")]
    NoneServes(ReadModel),
    /// The other version has not applied all that the serving one has: it is not fed, or its
    /// projector is behind.
    #[error("the other version of {0} is behind the serving one")]
    Behind(ReadModel),
    /// The other version has parked streams that the serving one shows.
    #[error("the other version of {0} has parked streams that the serving one shows")]
    Parked(ReadModel),
    /// The database does not answer, or refuses.
    #[error("the versions of the read models cannot be changed")]
    Database(#[from] sqlx::Error),
}

/// How often a rollback is tried while the other version is behind or a lock is held.
const TRIES: u32 = 20;

/// Pause between two of these tries.
const REST: Duration = Duration::from_millis(100);

/// Options of a rebuild.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromRow)]
pub struct Manner {
    /// Use little of the machine, however long the rebuild takes.
    pub gentle: bool,
    /// Only compare the new version with the serving one; it never serves.
    pub verify_only: bool,
}

/// Begins a rebuild. Returns the number of the new version. It serves once it has caught up and its
/// rows equal those of the serving version, or another build wrote the serving version.
///
/// # Errors
/// When a rebuild is under way, or the database refuses.
pub async fn request(pool: &PgPool, model: ReadModel) -> Result<u32, RebuildError> {
    let versions = request_all(pool, &[model], Manner::default()).await?;
    versions.into_iter().next().ok_or(RebuildError::NotUnderWay(model))
}

/// Like [`request`], for several read models, with options: all of them or none. Their versions
/// share one reader of the log.
///
/// # Errors
/// Like `request`, when one of them is refused.
pub async fn request_all(
    pool: &PgPool,
    models: &[ReadModel],
    manner: Manner,
) -> Result<Vec<u32>, RebuildError> {
    let (pool, models) = (pool.clone(), models.to_vec());
    database::detached(async move {
        for &model in &models {
            golden::ensure_noted(&pool, model).await?;
        }
        let mut tx = pool.begin().await?;
        version::lock(&mut tx).await?;
        let mut versions = Vec::new();
        for model in models {
            versions.push(begin(&mut tx, model, manner).await?);
        }
        tx.commit().await?;
        Ok(versions)
    })
    .await
}

async fn begin(
    connection: &mut PgConnection,
    model: ReadModel,
    manner: Manner,
) -> Result<u32, RebuildError> {
    if building(connection, model).await?.is_some() {
        return Err(RebuildError::UnderWay(model));
    }
    // The first version of a read model serves at once. It is made only while there is no version,
    // so a rebuild must not come before it.
    if switch::serving(connection, model).await?.is_none() {
        return Err(RebuildError::NoneServes(model));
    }
    let partitions: i64 =
        sqlx::query_scalar("select count(distinct partition) from control.checkpoint")
            .fetch_one(&mut *connection)
            .await?;
    let number = version::next_number(connection, model).await?;
    let partitions = u32::try_from(partitions).unwrap_or(u32::MAX);
    version::create_beside(connection, VersionId { model, number }, partitions).await?;
    sqlx::query(
        "update control.version set gentle = $3, verify_only = $4 \
         where projection = $1 and version = $2",
    )
    .bind(model.as_str())
    .bind(number)
    .bind(manner.gentle)
    .bind(manner.verify_only)
    .execute(connection)
    .await?;
    Ok(number.unsigned_abs())
}

/// Cancels the rebuild under way and drops its version.
///
/// # Errors
/// When none is under way, or the database refuses.
pub async fn cancel(pool: &PgPool, model: ReadModel) -> Result<(), RebuildError> {
    let pool = pool.clone();
    database::detached(async move {
        let mut tx = pool.begin().await?;
        version::lock(&mut tx).await?;
        let building = building(&mut tx, model).await?;
        let id = building.ok_or(RebuildError::NotUnderWay(model))?;
        version::drop_version(&mut tx, id).await?;
        tx.commit().await?;
        Ok(())
    })
    .await
}

/// Lets the version that is being built serve in spite of a reason against it: its rows differ from
/// the serving ones, or it has parked streams that the serving version shows. Returns its number.
///
/// # Errors
/// When none is being built, or the database refuses.
pub async fn accept(pool: &PgPool, model: ReadModel) -> Result<u32, RebuildError> {
    let pool = pool.clone();
    let number: Option<i32> = database::detached(async move {
        // Accepting a difference does not accept streams that are parked later.
        sqlx::query_scalar(
            "update control.version set \
             with_parked = with_parked or coalesce(verified not in ('different', 'undeclared'), true), \
             verified = case when verified in ('different', 'undeclared') then 'changed' \
             else verified end \
             where projection = $1 and state = 'building' returning version",
        )
        .bind(model.as_str())
        .fetch_optional(&pool)
        .await
    })
    .await?;
    number.map(i32::unsigned_abs).ok_or(RebuildError::NotUnderWay(model))
}

/// Pauses the rebuild under way, which keeps what it has built. Does nothing if it is paused
/// already.
///
/// # Errors
/// When none is under way, or the database refuses.
pub async fn pause(pool: &PgPool, model: ReadModel) -> Result<u32, RebuildError> {
    set_paused(pool, model, true).await
}

/// Resumes a paused rebuild. Does nothing if it is not paused.
///
/// # Errors
/// When none is under way, or the database refuses.
pub async fn resume(pool: &PgPool, model: ReadModel) -> Result<u32, RebuildError> {
    set_paused(pool, model, false).await
}

/// The measured rate starts anew when a rebuild is resumed.
async fn set_paused(pool: &PgPool, model: ReadModel, paused: bool) -> Result<u32, RebuildError> {
    let number: Option<i32> = sqlx::query_scalar(
        "update control.version v set paused = $2, \
         rate_since = case when paused = $2 then rate_since else clock_timestamp() end, \
         rate_events = case when paused = $2 then rate_events else \
         (select sum(c.events)::bigint from control.checkpoint c \
         where c.projection = v.projection and c.version = v.version) end \
         where projection = $1 and state = 'building' returning version",
    )
    .bind(model.as_str())
    .bind(paused)
    .fetch_optional(pool)
    .await?;
    number.map(i32::unsigned_abs).ok_or(RebuildError::NotUnderWay(model))
}

/// Lets the version that served before serve again. Returns its number.
///
/// # Errors
/// When there is none, or it has not been fed.
pub async fn rollback(pool: &PgPool, model: ReadModel) -> Result<u32, RebuildError> {
    let number: Option<i32> = sqlx::query_scalar(
        "select version from control.version where projection = $1 and state = 'live' and not \
         serving \
         order by served_at desc limit 1",
    )
    .bind(model.as_str())
    .fetch_optional(pool)
    .await?;
    let number = number.ok_or(RebuildError::NoOther(model))?;
    for _ in 0..TRIES {
        if switch::attempt(pool, VersionId { model, number }).await? {
            return Ok(number.unsigned_abs());
        }
        rest(REST).await;
    }
    if parked::counts(pool).await?.contains_key(&VersionId { model, number }) {
        return Err(RebuildError::Parked(model));
    }
    Err(RebuildError::Behind(model))
}

/// Drops every complete version that does not serve. Returns their numbers.
///
/// # Errors
/// When there is none, or the database refuses.
pub async fn drop_old(pool: &PgPool, model: ReadModel) -> Result<Vec<u32>, RebuildError> {
    let pool = pool.clone();
    database::detached(async move {
        let mut tx = pool.begin().await?;
        version::lock(&mut tx).await?;
        let numbers: Vec<i32> = sqlx::query_scalar(
            "select version from control.version where projection = $1 and state = 'live' and \
             not serving",
        )
        .bind(model.as_str())
        .fetch_all(&mut *tx)
        .await?;
        if numbers.is_empty() {
            return Err(RebuildError::NoOther(model));
        }
        for &number in &numbers {
            version::drop_version(&mut tx, VersionId { model, number }).await?;
        }
        tx.commit().await?;
        Ok(numbers.into_iter().map(i32::unsigned_abs).collect())
    })
    .await
}

async fn building(
    connection: &mut PgConnection,
    model: ReadModel,
) -> Result<Option<VersionId>, sqlx::Error> {
    let number: Option<i32> = sqlx::query_scalar(
        "select version from control.version where projection = $1 and state = 'building'",
    )
    .bind(model.as_str())
    .fetch_optional(connection)
    .await?;
    Ok(number.map(|number| VersionId { model, number }))
}
