//! Events to rows: all of them, by `COPY`.
//!
//! The table is append-only, so the versions of a stream are not looked up again here: an event that comes twice breaks
//! the primary key, and one that is missing stops the read models of its stream.

use crate::{
    facts::{Fact, Facts, sql_partition},
    projection::{ApplyError, Projection},
};
use async_trait::async_trait;
use events::Timestamp;
use sqlx::PgConnection;

/// The table of one version.
pub(crate) struct History {
    copy: String,
}

const COLUMNS: i16 = 13;

/// Bytes handed to the server at once.
const PIECE: usize = 256 * 1024;

/// 2000-01-01, where the times of `PostgreSQL` begin, in µs since 1970.
const EPOCH_2000: i64 = 946_684_800_000_000;

impl History {
    pub fn new(schema: &str) -> Self {
        let copy = format!(
            "copy {schema}.history (version, log_offset, occurred_at, partition, stream_kind, \
             schema_version, stream_id, \
             event_id, command_id, correlation_id, causation_id, event_type, body) from stdin \
             (format binary)"
        );
        Self { copy }
    }
}

#[async_trait]
impl Projection for History {
    async fn apply(
        &self,
        connection: &mut PgConnection,
        facts: &Facts<'_>,
    ) -> Result<(), ApplyError> {
        if facts.is_empty() {
            return Ok(());
        }
        let mut copy = connection.copy_in_raw(&self.copy).await?;
        let mut rows = Vec::with_capacity(PIECE + PIECE / 4);
        // The signature, no flags, no header extension.
        rows.extend_from_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
        for fact in facts.iter() {
            encode(&mut rows, fact);
            if rows.len() >= PIECE {
                copy.send(rows.as_slice()).await?;
                rows.clear();
            }
        }
        rows.extend_from_slice(&(-1_i16).to_be_bytes());
        copy.send(rows.as_slice()).await?;
        copy.finish().await?;
        Ok(())
    }
}

/// One row in the binary format of `COPY`: the count of columns, and each with its length.
fn encode(rows: &mut Vec<u8>, fact: &Fact) {
    let (record, at) = (&fact.record, fact.position);
    let metadata = &record.metadata;
    rows.extend_from_slice(&COLUMNS.to_be_bytes());
    let mut put = |bytes: &[u8]| {
        let len = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
        rows.extend_from_slice(&len.to_be_bytes());
        rows.extend_from_slice(bytes);
    };
    put(&metadata.version.to_be_bytes());
    put(&at.offset.0.to_be_bytes());
    put(&micros(record.time).to_be_bytes());
    put(&sql_partition(at.partition).to_be_bytes());
    put(&i16::from(record.stream.kind as u8).to_be_bytes());
    put(&metadata.schema.to_be_bytes());
    for id in [
        record.stream.id,
        record.event_id,
        metadata.command_id,
        metadata.correlation_id,
        metadata.causation_id,
    ] {
        put(id.as_bytes());
    }
    put(record.event_type.as_bytes());
    put(&record.body);
}

fn micros(time: Timestamp) -> i64 {
    time.timestamp_micros().saturating_sub(EPOCH_2000)
}
