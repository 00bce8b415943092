//! Read models built anew beside the serving version, and what an operator does with versions.
//!
//! A rebuild is a new version at the beginning of the log; any projector feeds it, and lets it serve once it has applied all
//! that the serving one has. The one that served before is fed on, so that going back is instant, until it is dropped.

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

/// Why an operator's wish about versions is refused.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// One is being built already.
    #[error("a rebuild of {0} is under way")]
    UnderWay(ReadModel),
    /// None is being built.
    #[error("no rebuild of {0} is under way")]
    NotUnderWay(ReadModel),
    /// Only the serving version is there.
    #[error("{0} has no other version than the serving one")]
    NoOther(ReadModel),
    /// It was never made ready: there is nothing to build another version beside.
    #[error("no version of {0} serves yet")]
    NoneServes(ReadModel),
    /// The other version is not fed, or its projector is behind: it does not have all that the serving one has.
    #[error("the other version of {0} is behind the serving one")]
    Behind(ReadModel),
    /// The other version keeps streams back that the serving one shows.
    #[error("the other version of {0} has parked streams that the serving one shows")]
    Parked(ReadModel),
    /// The database does not answer, or refuses.
    #[error("the versions of the read models cannot be changed")]
    Database(#[from] sqlx::Error),
}

/// How often a switch back is tried while it is held up.
const TRIES: u32 = 20;

/// The rest between two of these tries.
const REST: Duration = Duration::from_millis(100);

/// How a read model is built anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromRow)]
pub struct Manner {
    /// With little of the machine, however long it takes.
    pub gentle: bool,
    /// Only to be compared with the serving version, never to serve.
    pub verify_only: bool,
}

/// Begins a rebuild; gives the number of the new version. It serves as soon as it has caught up and was found to be the same
/// as the serving one, or other code wrote that.
///
/// # Errors
/// When one is under way, or the database refuses.
pub async fn request(pool: &PgPool, model: ReadModel) -> Result<u32, RebuildError> {
    let versions = request_all(pool, &[model], Manner::default()).await?;
    versions.into_iter().next().ok_or(RebuildError::NotUnderWay(model))
}

/// [`request`] for several read models, in some manner: all of them or none. They are filled from one reading of the log.
///
/// # Errors
/// As `request`, when one of them is refused.
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
    // A version with a number would keep the first one, which serves at once, from being made.
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

/// Gives up the rebuild under way and drops what it has built.
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

/// Accepts what keeps the version that is being built from serving: that its rows are not those that serve, or else that it
/// keeps streams back which the serving one shows. Gives its number.
///
/// # Errors
/// When none is being built, or the database refuses.
pub async fn accept(pool: &PgPool, model: ReadModel) -> Result<u32, RebuildError> {
    let pool = pool.clone();
    let number: Option<i32> = database::detached(async move {
        // What differs is one thing, and what may be parked afterwards another.
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

/// Holds the rebuild under way up; it keeps what it has. Nothing changes if it is held up already.
///
/// # Errors
/// When none is under way, or the database refuses.
pub async fn pause(pool: &PgPool, model: ReadModel) -> Result<u32, RebuildError> {
    set_paused(pool, model, true).await
}

/// Lets the rebuild go on that was held up. Nothing changes if it was not.
///
/// # Errors
/// When none is under way, or the database refuses.
pub async fn resume(pool: &PgPool, model: ReadModel) -> Result<u32, RebuildError> {
    set_paused(pool, model, false).await
}

/// The rate begins anew whenever it goes on.
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

/// Lets the version serve again that served before; gives its number.
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

/// Drops every finished version that does not serve; gives their numbers.
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
