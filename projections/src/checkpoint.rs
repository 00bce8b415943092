//! Checkpoints: how far a version has read each partition, and the fence for its writers.

use crate::{
    ReadModel,
    facts::{Fact, sql_partition},
    lease::Share,
    planted::Planted,
    progress::Seen,
    version::VersionId,
};
use events::{Offset, Partition, Position, Timestamp, log::Cursor, log::Record};
use sqlx::{AssertSqlSafe, FromRow, PgConnection, PgPool, SqlSafeStr, SqlStr};
use std::collections::BTreeMap;
use uuid::Uuid;

/// How far a version has read a partition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Checkpoint {
    /// Where it continues to read.
    pub cursor: Cursor,
    /// The last event applied.
    pub last: Option<Last>,
    /// The number of events applied.
    pub events: i64,
    /// Whether this version serves.
    pub serving: bool,
    /// Why the partition has stopped; `None` while it is fed.
    pub stopped: Option<String>,
    /// The number of parked streams.
    pub parked: i32,
    /// Whether the partition must not be filled in bulk any more, however far behind it is.
    pub bulk_over: bool,
}

/// The last event applied: its offset, its id and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Last {
    pub offset: Offset,
    pub event_id: Uuid,
    pub time: Timestamp,
}

impl Last {
    pub fn of(fact: &Fact) -> Self {
        Self::at(fact.position, &fact.record)
    }

    pub fn at(position: Position, record: &Record) -> Self {
        Self { offset: position.offset, event_id: record.event_id, time: record.time }
    }
}

impl Checkpoint {
    pub fn seen(&self) -> Seen {
        let last = self.last.map(|last| last.offset);
        Seen {
            next: self.cursor.offset,
            last,
            stopped: self.stopped.is_some(),
            parked: self.parked > 0,
        }
    }
}

#[derive(FromRow)]
struct CheckpointRow {
    projection: String,
    version: i32,
    partition: i32,
    serving: bool,
    next_offset: i64,
    term: i64,
    last_offset: Option<i64>,
    last_event_id: Option<Uuid>,
    last_time: Option<Timestamp>,
    events: i64,
    stopped: Option<String>,
    parked: i32,
    bulk_over: bool,
}

impl CheckpointRow {
    fn share(self) -> Option<(Share, Checkpoint)> {
        let id = VersionId { model: self.projection.parse().ok()?, number: self.version };
        let last = match (self.last_offset, self.last_event_id, self.last_time) {
            (Some(offset), Some(event_id), Some(time)) => {
                Some(Last { offset: Offset(offset), event_id, time })
            }
            _ => None,
        };
        let cursor = Cursor { offset: Offset(self.next_offset), term: self.term.unsigned_abs() };
        let Self { serving, events, stopped, parked, bulk_over, .. } = self;
        let checkpoint = Checkpoint { cursor, last, events, serving, stopped, parked, bulk_over };
        Some(((id, Partition(self.partition.unsigned_abs())), checkpoint))
    }
}

/// The query that reads [`CheckpointRow`]s.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "select projection, version, partition, serving, next_offset, term, last_offset, \
             last_event_id, last_time, events, stopped, parked, bulk_over from control.checkpoint",
            $rest
        )
    };
}

/// All checkpoints.
pub(crate) async fn load(pool: &PgPool) -> Result<BTreeMap<Share, Checkpoint>, sqlx::Error> {
    let rows: Vec<CheckpointRow> = sqlx::query_as(select!("")).fetch_all(pool).await?;
    Ok(rows.into_iter().filter_map(CheckpointRow::share).collect())
}

/// The checkpoints of one version. `locked` locks their rows until the transaction ends.
pub(crate) async fn of(
    connection: &mut PgConnection,
    id: VersionId,
    locked: bool,
) -> Result<BTreeMap<Partition, Checkpoint>, sqlx::Error> {
    let query = if locked {
        select!(" where projection = $1 and version = $2 order by partition for update")
    } else {
        select!(" where projection = $1 and version = $2 order by partition")
    };
    let rows: Vec<CheckpointRow> =
        sqlx::query_as(query).bind(id.model.as_str()).bind(id.number).fetch_all(connection).await?;
    let of = |row: CheckpointRow| {
        row.share().map(|((_, partition), checkpoint)| (partition, checkpoint))
    };
    Ok(rows.into_iter().filter_map(of).collect())
}

/// Locks a checkpoint until the transaction ends.
pub(crate) async fn lock(
    connection: &mut PgConnection,
    (id, partition): Share,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "select 1 from control.checkpoint \
         where projection = $1 and version = $2 and partition = $3 for update",
    )
    .bind(id.model.as_str())
    .bind(id.number)
    .bind(sql_partition(partition))
    .execute(connection)
    .await?;
    Ok(())
}

/// One move of one checkpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Move {
    pub share: Share,
    /// The offset at which the checkpoint must be; otherwise the move fails.
    pub expected: Offset,
    pub to: Cursor,
    /// The last event that the move covers; `None` if it covers only gaps.
    pub last: Option<Last>,
    /// The number of events that the move covers.
    pub events: i64,
}

/// Another writer moved a checkpoint first, or the checkpoint is stopped or was dropped.
#[derive(Debug, thiserror::Error)]
#[error("a checkpoint is not at the expected offset")]
pub(crate) struct Fenced;

/// Moves each checkpoint from the offset that its move expects.
const ADVANCE: &str = "update control.checkpoint c set next_offset = u.next_offset, term = u.term, \
     last_offset = coalesce(u.last_offset, c.last_offset), \
     last_event_id = coalesce(u.last_event_id, c.last_event_id), \
     last_time = coalesce(u.last_time, c.last_time), \
     events = c.events + u.events, updated_at = clock_timestamp() \
     from unnest($1::text[], $2::integer[], $3::integer[], $4::bigint[], $5::bigint[], \
     $6::bigint[], \
     $7::bigint[], $8::uuid[], $9::timestamptz[], $10::bigint[]) \
     as u(projection, version, partition, expected, next_offset, term, last_offset, \
     last_event_id, last_time, events) \
     where c.projection = u.projection and c.version = u.version and c.partition = u.partition \
     and c.next_offset = u.expected and c.stopped is null \
     returning c.projection, c.version, c.partition, c.serving";

/// The condition that fences writers.
const FENCE: &str = "and c.next_offset = u.expected ";

fn advance_sql(planted: Planted) -> SqlStr {
    if planted.unconditional_checkpoint() {
        return AssertSqlSafe(ADVANCE.replace(FENCE, "")).into_sql_str();
    }
    ADVANCE.into_sql_str()
}

/// Moves checkpoints, all or none. Returns whether each moved version serves; on [`Fenced`] the
/// caller rolls back.
///
/// This is the first statement of the transaction that writes the rows. A second writer of the same
/// rows blocks here until the first has committed, and then finds that the checkpoint has moved.
pub(crate) async fn advance(
    connection: &mut PgConnection,
    moves: &[Move],
    planted: Planted,
) -> Result<Result<BTreeMap<Share, bool>, Fenced>, sqlx::Error> {
    let column = |by: fn(&Move) -> i64| moves.iter().map(by).collect::<Vec<_>>();
    let names: Vec<_> = moves.iter().map(|step| step.share.0.model.as_str()).collect();
    let numbers: Vec<_> = moves.iter().map(|step| step.share.0.number).collect();
    let partitions: Vec<_> = moves.iter().map(|step| sql_partition(step.share.1)).collect();
    let last: Vec<_> = moves.iter().map(|step| step.last).collect();
    let done: Vec<(String, i32, i32, bool)> = sqlx::query_as(advance_sql(planted))
        .bind(names)
        .bind(numbers)
        .bind(partitions)
        .bind(column(|step| step.expected.0))
        .bind(column(|step| step.to.offset.0))
        .bind(column(|step| i64::try_from(step.to.term).unwrap_or(i64::MAX)))
        .bind(last.iter().map(|last| last.map(|last| last.offset.0)).collect::<Vec<_>>())
        .bind(last.iter().map(|last| last.map(|last| last.event_id)).collect::<Vec<_>>())
        .bind(last.iter().map(|last| last.map(|last| last.time)).collect::<Vec<_>>())
        .bind(column(|step| step.events))
        .fetch_all(connection)
        .await?;
    if done.len() != moves.len() {
        return Ok(Err(Fenced));
    }
    let share = |(name, number, partition, serving): (String, i32, i32, bool)| {
        let model: ReadModel = name.parse().ok()?;
        let id = VersionId { model, number };
        Some(((id, Partition(partition.unsigned_abs())), serving))
    };
    Ok(Ok(done.into_iter().filter_map(share).collect()))
}

/// Stops a partition of a version at its checkpoint.
pub(crate) async fn stop(
    pool: &PgPool,
    (id, partition): Share,
    at: Offset,
    reason: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update control.checkpoint set stopped = $5, updated_at = clock_timestamp() \
         where projection = $1 and version = $2 and partition = $3 and next_offset = $4",
    )
    .bind(id.model.as_str())
    .bind(id.number)
    .bind(sql_partition(partition))
    .bind(at.0)
    .bind(reason)
    .execute(pool)
    .await?;
    Ok(())
}

/// Hands a partition that was being filled in bulk over to the ordinary feed.
pub(crate) async fn end_bulk(
    pool: &PgPool,
    (id, partition): Share,
    at: Offset,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update control.checkpoint set bulk_over = true, updated_at = clock_timestamp() \
         where projection = $1 and version = $2 and partition = $3 and next_offset = $4",
    )
    .bind(id.model.as_str())
    .bind(id.number)
    .bind(sql_partition(partition))
    .bind(at.0)
    .execute(pool)
    .await?;
    Ok(())
}

/// Lets stopped partitions try again: another process or another build feeds them now.
pub(crate) async fn resume(pool: &PgPool, shares: &[Share]) -> Result<(), sqlx::Error> {
    let names: Vec<_> = shares.iter().map(|(id, _)| id.model.as_str()).collect();
    let numbers: Vec<_> = shares.iter().map(|(id, _)| id.number).collect();
    let partitions: Vec<_> = shares.iter().map(|(_, at)| sql_partition(*at)).collect();
    sqlx::query(
        "update control.checkpoint c set stopped = null \
         from unnest($1::text[], $2::integer[], $3::integer[]) as u(projection, version, \
         partition) \
         where c.projection = u.projection and c.version = u.version and c.partition = u.partition \
         and c.stopped is not null",
    )
    .bind(names)
    .bind(numbers)
    .bind(partitions)
    .execute(pool)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::{self, PoolSettings, local::LocalPostgres};

    fn step(share: Share, expected: i64, to: i64, events: i64) -> Move {
        let to = Cursor { offset: Offset(to), term: 1 };
        Move { share, expected: Offset(expected), to, last: None, events }
    }

    /// Two writers start from the same checkpoint: the second blocks until the first has committed,
    /// and is then fenced. A writer that moves several checkpoints is fenced if another writer
    /// moved one of them.
    #[tokio::test]
    async fn of_two_writers_at_one_checkpoint_one_moves_it() {
        let postgres = LocalPostgres::throwaway().await.unwrap();
        let settings = PoolSettings::default();
        let pool = database::connect(postgres.connect_options(), settings).await.unwrap();
        crate::prepare(&pool, 2).await.unwrap();
        let id = VersionId { model: ReadModel::Orders, number: 1 };
        let (one, other) = ((id, Partition(0)), (id, Partition(1)));

        let mut first = database::begin(&pool).await.unwrap();
        let moved =
            advance(&mut first, &[step(one, 0, 10, 5)], Planted::Nothing).await.unwrap().unwrap();
        assert_eq!(moved, BTreeMap::from([(one, true)]));
        let zombie = async {
            let mut zombie = database::begin(&pool).await.unwrap();
            let steps = [step(one, 0, 12, 7), step(other, 0, 3, 1)];
            let fenced = advance(&mut zombie, &steps, Planted::Nothing).await.unwrap();
            zombie.rollback().await.unwrap();
            fenced
        };
        let commit = async {
            tokio::task::yield_now().await;
            first.commit().await.unwrap();
        };
        let (fenced, ()) = tokio::join!(zombie, commit);
        assert!(fenced.is_err());

        let checkpoints = load(&pool).await.unwrap();
        let at = |share| (checkpoints[&share].cursor.offset, checkpoints[&share].events);
        assert_eq!((at(one), at(other)), ((Offset(10), 5), (Offset(0), 0)));
        stop(&pool, one, Offset(10), "for the test").await.unwrap();
        let mut late = database::begin(&pool).await.unwrap();
        assert!(
            advance(&mut late, &[step(one, 10, 11, 1)], Planted::Nothing).await.unwrap().is_err()
        );
    }
}
