//! Rows to answers.

use super::{Entry, Range};
use crate::{QueryError, ReadModel, ReadModels, projection::unreadable};
use events::{Offset, Partition, Position, StreamId, Timestamp};
use serde_json::value::RawValue;
use sqlx::FromRow;
use uuid::Uuid;

impl ReadModels {
    /// The events of a stream, in order of their versions.
    ///
    /// # Errors
    /// When the database does not answer, or the stream is parked.
    pub async fn history(&self, stream: StreamId, range: Range) -> Result<Vec<Entry>, QueryError> {
        self.refuse_parked(ReadModel::History, stream).await?;
        let version = |version: u64| i64::try_from(version).unwrap_or(i64::MAX);
        self.ask(move |pool| async move {
            let rows: Vec<HistoryRow> = sqlx::query_as(
                "select version, event_id, event_type, schema_version, occurred_at, command_id, \
                 correlation_id, \
                 causation_id, partition, log_offset, body from read.history \
                 where stream_kind = $1 and stream_id = $2 and version > $3 and version <= $4 \
                 order by version limit $5",
            )
            .bind(i16::from(stream.kind as u8))
            .bind(stream.id)
            .bind(version(range.after))
            .bind(version(range.up_to))
            .bind(i64::from(range.limit))
            .fetch_all(&pool)
            .await?;
            rows.into_iter().map(|row| row.entry(stream)).collect()
        })
        .await
    }
}

#[derive(FromRow)]
struct HistoryRow {
    version: i64,
    event_id: Uuid,
    event_type: String,
    schema_version: i16,
    occurred_at: Timestamp,
    command_id: Uuid,
    correlation_id: Uuid,
    causation_id: Uuid,
    partition: i32,
    log_offset: i64,
    body: String,
}

impl HistoryRow {
    fn entry(self, stream: StreamId) -> Result<Entry, QueryError> {
        let bad = |problem| unreadable("history", problem);
        Ok(Entry {
            stream,
            version: self.version.unsigned_abs(),
            event_id: self.event_id,
            event_type: self.event_type,
            schema: self.schema_version.unsigned_abs(),
            occurred_at: self.occurred_at,
            command_id: self.command_id,
            correlation_id: self.correlation_id,
            causation_id: self.causation_id,
            position: Position {
                partition: Partition(self.partition.unsigned_abs()),
                offset: Offset(self.log_offset),
            },
            data: RawValue::from_string(self.body).map_err(|_| bad("body"))?,
        })
    }
}
