//! Parked streams. If a version cannot apply an event (no code here can decode it, or its row is
//! refused), it parks the event's stream: it keeps that event and all later events of the stream
//! back, in order. The other streams of the partition go on.
//!
//! The events stay in the log. The transaction that moves the checkpoint past them records where
//! they are. The checkpoint counts them like applied ones. After a fix, [`retry`] applies them in
//! order.
//!
//! A fault of the database parks nothing. Only an event that would be refused at every attempt
//! does.

mod careful;
mod retry;
mod sieve;
mod store;

pub(crate) use careful::{Refusal, apply as apply_carefully};
pub use retry::{Retried, RetryError, RetryReport, retry};
pub(crate) use sieve::{KeptBack, Sieve};
pub(crate) use store::{counts, firsts, keeps_back, load, record};

use crate::{QueryError, ReadModel, ReadModels, database};
use events::{Offset, Partition, Position, StreamId, Timestamp};
use sqlx::{FromRow, PgPool};
use std::collections::BTreeMap;
use uuid::Uuid;

/// The largest number of streams that a partition of a version may have parked. One more stops the
/// partition.
pub(crate) const MAX_PARKED: usize = 1_000;

/// A stream that a version of a read model has parked.
#[derive(Clone, Debug, PartialEq)]
pub struct ParkedStream {
    /// The read model.
    pub model: ReadModel,
    /// The version of the read model.
    pub version: u32,
    /// Whether that version serves.
    pub serving: bool,
    /// The stream.
    pub stream: StreamId,
    /// The stream version of the first event kept back.
    pub stream_version: u64,
    /// The position of that event.
    pub position: Position,
    /// The position of the last event kept back.
    pub last_position: Position,
    /// The number of events kept back.
    pub events: i64,
    /// Why the first of them cannot be applied.
    pub reason: String,
    /// When the first of them was decided.
    pub first_at: Timestamp,
    /// When the last of them was decided.
    pub last_at: Timestamp,
    /// When the stream was parked.
    pub parked_at: Timestamp,
    /// The number of retries that failed.
    pub tries: u32,
}

/// The last parked stream of a page; the next page begins after it. Read model, version, partition,
/// stream kind and stream id.
pub type Cursor = (String, i32, i32, i16, Uuid);

impl ParkedStream {
    /// The cursor for the page after this stream.
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
struct ParkedRow {
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

impl ParkedRow {
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

/// The parked streams of all versions, after the stream `after`, at most `limit`.
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
        let rows: Vec<ParkedRow> = sqlx::query_as(
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
        Ok(rows.into_iter().filter_map(ParkedRow::shown).collect())
    })
    .await
}

/// The gauge of parked streams of the serving version.
pub(crate) fn gauge(model: ReadModel) -> metrics::Gauge {
    metrics::gauge!("projection_parked_streams", "projection" => model.as_str())
}

impl ReadModels {
    /// The number of streams that each serving version has parked; read models without any are left
    /// out.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn parked(&self) -> Result<BTreeMap<ReadModel, i64>, QueryError> {
        let rows: Vec<(String, i64)> = self
            .ask_probe(|pool| async move {
                let query = "select projection, count(*) from read.parked group by projection";
                Ok(sqlx::query_as(query).fetch_all(&pool).await?)
            })
            .await?;
        let count = |(name, count): (String, i64)| Some((name.parse().ok()?, count));
        Ok(rows.into_iter().filter_map(count).collect())
    }

    /// Returns an error if `model` has parked this stream. Call it before reading the rows: if a
    /// retry drains the stream in between, the rows include its events; if the stream is parked in
    /// between, the event is behind the position that the answer reports.
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
