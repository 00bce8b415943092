//! Parked streams: an event that cannot be applied, because no code here reads it or because its row is refused, keeps its
//! stream back from there on, in order, in each version that meets it. The rest of the partition goes on.
//!
//! What is kept back is noted in the transaction that moves the checkpoint past it, by its place: the events stay in the
//! log. A checkpoint counts them, as it counts those that are applied. After a fix, [`retry`] applies them in order.
//!
//! A fault of the database parks nothing: only what is refused whenever it is tried.

mod careful;
mod retry;
mod sieve;
mod store;

pub(crate) use careful::{Refusal, apply as apply_carefully};
pub use retry::{Outcome, Retried, RetryError, retry};
pub(crate) use sieve::{Held, Sieve};
pub(crate) use store::{counts, firsts, holds_back, load, record};

use crate::{QueryError, ReadModel, ReadModels, database};
use events::{Offset, Partition, Position, StreamId, Timestamp};
use sqlx::{FromRow, PgPool};
use std::collections::BTreeMap;
use uuid::Uuid;

/// So many streams a partition of a version keeps back; one more stops it there.
pub(crate) const MAX_PARKED: usize = 1_000;

/// A stream that a version of a read model keeps back.
#[derive(Clone, Debug, PartialEq)]
pub struct ParkedStream {
    /// Of which read model.
    pub model: ReadModel,
    /// Which version of it.
    pub version: u32,
    /// Whether queries see that version.
    pub serving: bool,
    /// The stream.
    pub stream: StreamId,
    /// The stream's version with the first event kept back.
    pub stream_version: u64,
    /// Where that event stands.
    pub position: Position,
    /// Where the last one stands.
    pub last_position: Position,
    /// How many there are.
    pub events: i64,
    /// Why the first one cannot be applied.
    pub reason: String,
    /// When the first one was decided.
    pub first_at: Timestamp,
    /// When the last one was decided.
    pub last_at: Timestamp,
    /// When the stream was parked.
    pub parked_at: Timestamp,
    /// How often it was tried again in vain.
    pub tries: u32,
}

/// Behind which parked stream a page begins: its read model, version, partition and stream.
pub type Cursor = (String, i32, i32, i16, Uuid);

impl ParkedStream {
    /// Where the page behind it begins.
    pub fn cursor(&self) -> Cursor {
        (
            self.model.as_str().to_owned(),
            i32::try_from(self.version).unwrap_or(i32::MAX),
            crate::facts::sql_partition(self.position.partition),
            i16::from(self.stream.kind as u8),
            self.stream.id,
        )
    }
}

#[derive(FromRow)]
struct Row {
    projection: String,
    version: i32,
    serving: bool,
    partition: i32,
    stream_kind: i16,
    stream_id: Uuid,
    stream_version: i64,
    first_offset: i64,
    last_offset: i64,
    events: i64,
    reason: String,
    first_time: Timestamp,
    last_time: Timestamp,
    parked_at: Timestamp,
    tries: i32,
}

impl Row {
    fn shown(self) -> Option<ParkedStream> {
        let partition = Partition(self.partition.unsigned_abs());
        let at = |offset| Position { partition, offset: Offset(offset) };
        Some(ParkedStream {
            model: self.projection.parse().ok()?,
            version: self.version.unsigned_abs(),
            serving: self.serving,
            stream: store::stream(self.stream_kind, self.stream_id)?,
            stream_version: self.stream_version.unsigned_abs(),
            position: at(self.first_offset),
            last_position: at(self.last_offset),
            events: self.events,
            reason: self.reason,
            first_at: self.first_time,
            last_at: self.last_time,
            parked_at: self.parked_at,
            tries: self.tries.unsigned_abs(),
        })
    }
}

/// The parked streams of all versions, from behind `after` on, at most `limit`.
///
/// # Errors
/// When the database does not answer.
pub async fn list(
    pool: &PgPool,
    after: Option<Cursor>,
    limit: u32,
) -> Result<Vec<ParkedStream>, sqlx::Error> {
    let pool = pool.clone();
    database::detached(async move {
        let (name, number, partition, kind, id) = after.unwrap_or_default();
        let rows: Vec<Row> = sqlx::query_as(
            "select projection, version, serving, partition, stream_kind, stream_id, \
             stream_version, first_offset, last_offset, events, reason, first_time, last_time, \
             parked_at, tries \
             from control.parked join control.version using (projection, version) \
             where (projection, version, partition, stream_kind, stream_id) > ($1, $2, $3, $4, $5) \
             order by projection, version, partition, stream_kind, stream_id limit $6",
        )
        .bind(name)
        .bind(number)
        .bind(partition)
        .bind(kind)
        .bind(id)
        .bind(i64::from(limit))
        .fetch_all(&pool)
        .await?;
        Ok(rows.into_iter().filter_map(Row::shown).collect())
    })
    .await
}

/// The gauge of parked streams of the serving version.
pub(crate) fn gauge(model: ReadModel) -> metrics::Gauge {
    metrics::gauge!("projection_parked_streams", "projection" => model.as_str())
}

impl ReadModels {
    /// How many streams the serving versions keep back, where it is any.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn parked(&self) -> Result<BTreeMap<ReadModel, i64>, QueryError> {
        let rows: Vec<(String, i64)> = self
            .ask(|pool| async move {
                let query = "select projection, count(*) from read.parked group by projection";
                Ok(sqlx::query_as(query).fetch_all(&pool).await?)
            })
            .await?;
        let count = |(name, count): (String, i64)| Some((name.parse().ok()?, count));
        Ok(rows.into_iter().filter_map(count).collect())
    }

    /// Refuses to show what `model` keeps back of a stream. Comes before the rows are read: what is drained meanwhile they
    /// show, and what is parked meanwhile is behind the position that was told.
    ///
    /// # Errors
    /// [`QueryError::Parked`], or when the database does not answer.
    pub(crate) async fn refuse_parked(
        &self,
        model: ReadModel,
        stream: StreamId,
    ) -> Result<(), QueryError> {
        if !self.may_have_parked(model).await? {
            return Ok(());
        }
        let parked: bool = self
            .ask(move |pool| async move {
                let query = "select exists (select from read.parked where projection = $1 \
                             and stream_kind = $2 and stream_id = $3)";
                let asked = sqlx::query_scalar(query)
                    .bind(model.as_str())
                    .bind(i16::from(stream.kind as u8))
                    .bind(stream.id);
                Ok(asked.fetch_one(&pool).await?)
            })
            .await?;
        if parked { Err(QueryError::Parked { model, stream }) } else { Ok(()) }
    }
}
