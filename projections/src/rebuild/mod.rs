//! Read models built anew beside the serving version, and what an operator does with versions.
//!
//! A rebuild is a new version at the beginning of the log; any projector feeds it, and lets it serve once it has applied all
//! that the serving one has. The one that served before is fed on, so that going back is instant, until it is dropped.

pub(crate) mod switch;

use crate::{
    ReadModel, database,
    progress::rest,
    version::{self, VersionId},
};
use events::{Offset, Partition, Position, log::EventLog, log::ReadError};
use sqlx::{FromRow, PgConnection, PgPool};
use std::{collections::BTreeMap, time::Duration};

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
    /// The database does not answer, or refuses.
    #[error("the versions of the read models cannot be changed")]
    Database(#[from] sqlx::Error),
}

/// How often a switch back is tried while it is held up.
const TRIES: u32 = 20;

/// The rest between two of these tries.
const REST: Duration = Duration::from_millis(100);

/// Begins a rebuild; gives the number of the new version. It serves as soon as it has caught up.
///
/// # Errors
/// When one is under way, or the database refuses.
pub async fn request(pool: &PgPool, model: ReadModel) -> Result<u32, RebuildError> {
    let pool = pool.clone();
    database::detached(async move {
        let mut tx = pool.begin().await?;
        version::lock(&mut tx).await?;
        if building(&mut tx, model).await?.is_some() {
            return Err(RebuildError::UnderWay(model));
        }
        // A version with a number would keep the first one, which serves at once, from being made.
        if switch::serving(&mut tx, model).await?.is_none() {
            return Err(RebuildError::NoneServes(model));
        }
        let partitions: i64 =
            sqlx::query_scalar("select count(distinct partition) from control.checkpoint")
                .fetch_one(&mut *tx)
                .await?;
        let number = version::next_number(&mut tx, model).await?;
        let partitions = u32::try_from(partitions).unwrap_or(u32::MAX);
        version::create(&mut tx, VersionId { model, number }, partitions, false).await?;
        tx.commit().await?;
        Ok(number.unsigned_abs())
    })
    .await
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

/// How a version is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has not caught up for the first time yet.
    Building,
    /// It is complete, and fed.
    Live,
    /// It was written by other code than this program's and is not fed by it.
    Stale,
    /// A partition of it cannot go on.
    Stopped,
}

impl State {
    /// The name in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Building => "building",
            Self::Live => "live",
            Self::Stale => "stale",
            Self::Stopped => "stopped",
        }
    }
}

/// A version of a read model, as an operator sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionStatus {
    /// Of which read model.
    pub model: ReadModel,
    /// Its number, from 1.
    pub version: u32,
    /// Whether queries see it.
    pub serving: bool,
    /// How it is.
    pub state: State,
    /// Events it has applied.
    pub events: i64,
    /// Events it has still to apply, as far as they are known: those that other versions have applied, and at least one
    /// where the log goes on.
    pub lag_events: i64,
    /// How long ago the last event was decided that it has applied, in the partition that is furthest behind; 0 when it
    /// has applied all.
    pub lag_seconds: f64,
    /// Each partition of it.
    pub partitions: Vec<PartitionStatus>,
}

/// A partition of a version.
#[derive(Clone, Debug, PartialEq)]
pub struct PartitionStatus {
    /// Which one.
    pub partition: Partition,
    /// The last event applied.
    pub position: Option<Position>,
    /// Why nothing more is applied; `None` while all is well.
    pub stopped: Option<String>,
}

/// Why the versions cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The database does not answer.
    #[error("the versions of the read models cannot be read")]
    Database(#[from] sqlx::Error),
    /// The log does not answer.
    #[error("the end of the log cannot be read")]
    Log(#[from] ReadError),
}

#[derive(FromRow)]
struct Row {
    projection: String,
    version: i32,
    fingerprint: String,
    building: bool,
    serving: bool,
    partition: i32,
    next_offset: i64,
    last_offset: Option<i64>,
    age_seconds: Option<f64>,
    events: i64,
    stopped: Option<String>,
}

/// Every version of every read model.
///
/// # Errors
/// When database or log do not answer.
pub async fn status(pool: &PgPool, log: &dyn EventLog) -> Result<Vec<VersionStatus>, StatusError> {
    // Before the checkpoints are read: what they have by then counts.
    let mut ends = BTreeMap::new();
    for partition in (0..log.partitions()).map(Partition) {
        ends.insert(partition, log.end(partition).await?);
    }
    let rows: Vec<Row> = sqlx::query_as(
        "select projection, version, fingerprint, state = 'building' as building, v.serving, \
         partition, next_offset, \
         last_offset, extract(epoch from clock_timestamp() - last_time)::float8 as age_seconds, \
         events, stopped \
         from control.version v join control.checkpoint c using (projection, version) \
         order by projection, version, partition",
    )
    .fetch_all(pool)
    .await?;
    let mut most: BTreeMap<i32, i64> = BTreeMap::new();
    for row in &rows {
        let most = most.entry(row.partition).or_default();
        *most = row.events.max(*most);
    }
    let mut versions: Vec<VersionStatus> = Vec::new();
    for row in rows {
        let Ok(model) = row.projection.parse() else { continue };
        let number = row.version.unsigned_abs();
        if versions.last().is_none_or(|last| (last.model, last.version) != (model, number)) {
            versions.push(blank(model, number, &row));
        }
        if let Some(version) = versions.last_mut() {
            let known = most.get(&row.partition).map_or(0, |most| most - row.events);
            let partition = Partition(row.partition.unsigned_abs());
            let more = ends.get(&partition).is_some_and(|end| Offset(row.next_offset) < *end);
            add(version, partition, row, known.max(i64::from(more)));
        }
    }
    Ok(versions)
}

fn blank(model: ReadModel, version: u32, row: &Row) -> VersionStatus {
    let ours = model.template().fingerprint() == row.fingerprint;
    let state = match (ours, row.building) {
        (false, _) => State::Stale,
        (true, true) => State::Building,
        (true, false) => State::Live,
    };
    let serving = row.serving;
    let (events, lag_events, lag_seconds) = (0, 0, 0.0);
    let partitions = Vec::new();
    VersionStatus { model, version, serving, state, events, lag_events, lag_seconds, partitions }
}

fn add(version: &mut VersionStatus, partition: Partition, row: Row, lag: i64) {
    if row.stopped.is_some() {
        version.state = State::Stopped;
    }
    version.events += row.events;
    version.lag_events += lag;
    if lag > 0 {
        let age = row.age_seconds.unwrap_or_default();
        version.lag_seconds = version.lag_seconds.max(age).max(0.0);
    }
    let position = row.last_offset.map(|offset| Position { partition, offset: Offset(offset) });
    version.partitions.push(PartitionStatus { partition, position, stopped: row.stopped });
}
