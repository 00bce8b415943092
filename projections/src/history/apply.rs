//! Events to rows: every event becomes a row, written by `COPY`.
//!
//! The table is append-only, so the writer does not check the versions of a stream: an event that
//! is applied twice violates the primary key, and a missing one parks its stream in the other read
//! models.

use crate::{
    copy::{Copying, Rows},
    facts::{Facts, sql_partition},
    projection::{ApplyError, Projection},
    rebuild::gather::{Gather, Needs},
};
use async_trait::async_trait;
use events::{Event, Position, StreamKind, log::Record};
use sqlx::PgConnection;
use std::sync::Arc;

/// The `history` table of one version.
pub(crate) struct History {
    copy: Arc<str>,
}

const COLUMNS: usize = 13;

impl History {
    pub fn new(schema: &str) -> Self {
        let copy = format!(
            "copy {schema}.history (version, log_offset, occurred_at, partition, stream_kind, \
             schema_version, stream_id, \
             event_id, command_id, correlation_id, causation_id, event_type, body) from stdin \
             (format binary)"
        );
        Self { copy: copy.into() }
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
        let mut copying = Copying::begin(connection, &self.copy).await?;
        for fact in facts.iter() {
            encode(&mut copying.rows, fact.position, &fact.record);
            copying.pass_on().await?;
        }
        copying.finish().await?;
        Ok(())
    }

    fn gather(&self) -> Box<dyn Gather> {
        Box::new(GatheredRows { copy: Arc::clone(&self.copy), rows: Rows::default() })
    }
}

/// Rows gathered for a bulk write. They are encoded at once and kept in the form in which they are
/// sent.
struct GatheredRows {
    copy: Arc<str>,
    rows: Rows,
}

#[async_trait]
impl Gather for GatheredRows {
    fn needs(&self, _: StreamKind) -> Needs {
        Needs::Record
    }

    fn take(&mut self, at: Position, record: &Record, _: Option<&Event>) -> Result<(), ApplyError> {
        encode(&mut self.rows, at, record);
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.rows.len()
    }

    async fn write(&self, connection: &mut PgConnection) -> Result<(), ApplyError> {
        let mut copying = Copying::begin(connection, &self.copy).await?;
        copying.send(&self.rows).await?;
        copying.finish().await?;
        Ok(())
    }

    fn clear(&mut self) {
        self.rows.clear();
    }
}

fn encode(rows: &mut Rows, at: Position, record: &Record) {
    let metadata = &record.metadata;
    rows.begin(COLUMNS);
    rows.put(&metadata.version.to_be_bytes());
    rows.put(&at.offset.0.to_be_bytes());
    rows.time(record.time);
    rows.put(&sql_partition(at.partition).to_be_bytes());
    rows.put(&i16::from(record.stream.kind as u8).to_be_bytes());
    rows.put(&metadata.schema.to_be_bytes());
    for id in [
        record.stream.id,
        record.event_id,
        metadata.command_id,
        metadata.correlation_id,
        metadata.causation_id,
    ] {
        rows.put(id.as_bytes());
    }
    rows.put(record.event_type.as_bytes());
    rows.put(&record.body);
}
