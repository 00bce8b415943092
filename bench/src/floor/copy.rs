//! Raw `COPY` of the history's rows into its table, with and without indexes.

use crate::{
    measure::{Measured, latencies, record},
    observed::Appended,
};
use anyhow::{Context, Result};
use events::{
    Partition, StreamKind,
    log::{BatchReader, Cursor, EventLog, Record, StoredBatch},
};
use sqlx::{Connection, Executor, PgConnection, postgres::PgConnectOptions};
use std::time::{Duration, Instant};

/// Rows per statement; each statement is its own transaction. It is the largest batch of a
/// projector.
const CHUNK: usize = 5_000;

/// The table and the indexes of the read model.
const TABLES: &str = include_str!("../../../migrations/projections/history/tables.sql");
const INDEXES: &str = include_str!("../../../migrations/projections/history/indexes.sql");

/// Microseconds from 1970 to 2000, the epoch of PostgreSQL.
const Y2K_MICROS: i64 = 946_684_800_000_000;

/// The rows of a log's history, in the binary format of `COPY`.
pub struct History {
    chunks: Vec<Chunk>,
}

#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    rows: u64,
}

impl History {
    /// Reads the whole log up to its current end.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn read(log: &dyn EventLog) -> Result<Self> {
        let mut chunks = vec![Chunk::default()];
        for partition in (0..log.partitions()).map(Partition) {
            let mut reader = BatchReader::open(log, partition, Cursor::START).await?;
            loop {
                let chunk = reader.next().await?;
                for batch in &chunk.batches {
                    add_rows(&mut chunks, batch);
                }
                if chunk.at_end {
                    break;
                }
            }
        }
        for chunk in &mut chunks {
            chunk.bytes.extend_from_slice(&(-1_i16).to_be_bytes());
        }
        Ok(Self { chunks })
    }

    /// The number of rows.
    pub fn rows(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.rows).sum()
    }
}

fn add_rows(chunks: &mut Vec<Chunk>, batch: &StoredBatch) {
    for stored in &batch.records {
        if stored.record.stream.kind == StreamKind::Writer {
            continue;
        }
        if chunks.last().is_none_or(|last| last.rows >= CHUNK as u64) {
            chunks.push(Chunk::default());
        }
        if let Some(chunk) = chunks.last_mut() {
            chunk.add(batch.partition, stored.offset.0, &stored.record);
        }
    }
}

impl Chunk {
    /// Adds a row, with the columns in the order of the table.
    fn add(&mut self, partition: Partition, offset: i64, record: &Record) {
        const COLUMNS: i16 = 13;
        if self.rows == 0 {
            // The signature, no flags, no header extension.
            self.bytes.extend_from_slice(b"PGCOPY\n\xff\r\n\0");
            self.bytes.extend_from_slice(&[0; 8]);
        }
        self.rows += 1;
        self.bytes.extend_from_slice(&COLUMNS.to_be_bytes());
        let metadata = &record.metadata;
        let time = record.time.timestamp_micros() - Y2K_MICROS;
        self.field(&metadata.version.to_be_bytes());
        self.field(&offset.to_be_bytes());
        self.field(&time.to_be_bytes());
        self.field(&partition.0.to_be_bytes());
        self.field(&i16::from(record.stream.kind as u8).to_be_bytes());
        self.field(&metadata.schema.to_be_bytes());
        self.field(record.stream.id.as_bytes());
        self.field(record.event_id.as_bytes());
        self.field(metadata.command_id.as_bytes());
        self.field(metadata.correlation_id.as_bytes());
        self.field(metadata.causation_id.as_bytes());
        self.field(record.event_type.as_bytes());
        self.field(&record.body);
    }

    fn field(&mut self, value: &[u8]) {
        // Bodies have a few hundred bytes; the log accepts none near 2 GiB.
        let len = i32::try_from(value.len()).unwrap_or(i32::MAX);
        self.bytes.extend_from_slice(&len.to_be_bytes());
        self.bytes.extend_from_slice(value);
    }
}

/// Copies the rows into a new table, with or without indexes, and drops it. Like the projector, it
/// does not wait for the disk at each commit. Operations are chunks of rows.
///
/// # Errors
/// When the database fails.
pub async fn run(options: &PgConnectOptions, history: &History, indexed: bool) -> Result<Measured> {
    let mut connection = PgConnection::connect_with(options).await?;
    let setup = "create schema floor; set search_path to floor; set synchronous_commit to off";
    connection.execute(sqlx::raw_sql(setup)).await?;
    connection.execute(sqlx::raw_sql(TABLES)).await?;
    if indexed {
        connection.execute(sqlx::raw_sql(INDEXES)).await?;
    }
    let measured = copy(&mut connection, history).await;
    connection.execute("drop schema floor cascade").await?;
    connection.close().await?;
    measured
}

async fn copy(connection: &mut PgConnection, history: &History) -> Result<Measured> {
    let (mut latency, mut appended) = (latencies()?, Appended::default());
    let started = Instant::now();
    for chunk in history.chunks.iter().filter(|chunk| chunk.rows > 0) {
        let began = Instant::now();
        let mut copy = connection.copy_in_raw("copy history from stdin (format binary)").await?;
        copy.send(chunk.bytes.as_slice()).await?;
        let rows = copy.finish().await.context("the rows were not copied")?;
        anyhow::ensure!(rows == chunk.rows, "{rows} rows were copied instead of {}", chunk.rows);
        record(&mut latency, began.elapsed());
        appended.batches += 1;
        appended.events += rows;
    }
    let (operations, took) = (latency.len(), started.elapsed());
    Ok(Measured { operations, took, latency: Some(latency), appended, cpu: Duration::ZERO })
}
