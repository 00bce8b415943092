//! The floor below a rebuild. It decodes and folds the same events from a file on one core, copies
//! the rows with binary `COPY` into a table without indexes, and then creates the primary key.
//!
//! From the program it uses only the event types and the tables: no log, no checkpoints, no
//! versions.

mod file;
mod history;
mod orders;
mod products;

pub use file::File;

use crate::measure::{Measured, cpu_time};
use crate::observed::Appended;
use anyhow::{Context, Result, ensure};
use events::{Event, Timestamp};
use file::Stored;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, postgres::PgConnectOptions};
use std::time::Instant;

/// Size of the pieces sent to the database, in bytes.
const PIECE: usize = 256 * 1024;

/// Microseconds from 1970 to 2000, the epoch of PostgreSQL.
const Y2K_MICROS: i64 = 946_684_800_000_000;

/// A read model that has a floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Model {
    /// One row per event.
    History,
    /// One row per order.
    Orders,
    /// One row per product.
    Products,
}

/// Folds events to rows.
trait Fold {
    /// Takes an event, or returns it for the other folds.
    fn take(&mut self, stored: &Stored<'_>, event: Event) -> Result<Option<Event>>;
    /// Appends all rows in the binary format of `COPY`, without header and trailer. Returns their
    /// number.
    fn rows(&mut self, row: &mut CopyRows) -> Result<u64>;
}

/// Rows in the binary format of `COPY`.
#[derive(Default)]
struct CopyRows(Vec<u8>);

impl CopyRows {
    fn begin(&mut self, columns: i16) {
        self.0.extend_from_slice(&columns.to_be_bytes());
    }

    fn put(&mut self, value: &[u8]) {
        let len = i32::try_from(value.len()).unwrap_or(i32::MAX);
        self.0.extend_from_slice(&len.to_be_bytes());
        self.0.extend_from_slice(value);
    }

    fn int(&mut self, value: i64) {
        self.put(&value.to_be_bytes());
    }

    fn time(&mut self, time: Timestamp) {
        self.int(time.timestamp_micros() - Y2K_MICROS);
    }

    fn optional(&mut self, value: Option<&[u8]>) {
        match value {
            Some(value) => self.put(value),
            None => self.0.extend_from_slice(&(-1_i32).to_be_bytes()),
        }
    }
}

/// Measures the floor of some read models together, in a new schema that is dropped at the end.
///
/// # Errors
/// When the file or the database fails.
pub async fn run(options: &PgConnectOptions, file: &File, models: &[Model]) -> Result<Measured> {
    let mut connection = PgConnection::connect_with(options).await?;
    let setup = "create schema floor; set search_path to floor; set synchronous_commit to off; \
                 set maintenance_work_mem to '256MB'";
    connection.execute(sqlx::raw_sql(setup)).await?;
    for model in models {
        let (tables, ..) = templates(*model);
        connection.execute(sqlx::raw_sql(tables)).await?;
    }
    let measured = measure(&mut connection, file, models).await;
    connection.execute("drop schema floor cascade").await?;
    connection.close().await?;
    measured
}

fn templates(model: Model) -> (&'static str, &'static str, &'static str) {
    macro_rules! template {
        ($name:literal) => {
            (
                include_str!(concat!("../../../../migrations/projections/", $name, "/tables.sql")),
                include_str!(concat!("../../../../migrations/projections/", $name, "/indexes.sql")),
                $name,
            )
        };
    }
    match model {
        Model::Orders => template!("orders"),
        Model::Products => template!("products"),
        Model::History => template!("history"),
    }
}

async fn measure(connection: &mut PgConnection, file: &File, models: &[Model]) -> Result<Measured> {
    let (began, cpu) = (Instant::now(), cpu_time());
    let mut folds: Vec<_> = models.iter().map(|model| (*model, fold(*model))).collect();
    let mut events = 0;
    file.each(|stored| {
        events += 1;
        let event = Event::from_json(stored.stream, stored.event_type, stored.schema, stored.body)?;
        let mut left = Some(event);
        for (_, fold) in &mut folds {
            let Some(event) = left else { break };
            left = fold.take(stored, event)?;
        }
        Ok(())
    })?;
    for (model, fold) in &mut folds {
        write(connection, *model, &mut **fold).await?;
    }
    let appended = Appended { batches: 0, events, body_bytes: 0 };
    let cpu = cpu_time().saturating_sub(cpu);
    Ok(Measured { operations: events, took: began.elapsed(), latency: None, appended, cpu })
}

fn fold(model: Model) -> Box<dyn Fold> {
    match model {
        Model::Orders => Box::new(orders::Orders::default()),
        Model::Products => Box::new(products::Products::default()),
        Model::History => Box::new(history::History::default()),
    }
}

async fn write(connection: &mut PgConnection, model: Model, fold: &mut dyn Fold) -> Result<()> {
    let (_, indexes, table) = templates(model);
    let mut row = CopyRows::default();
    // The signature, no flags, no header extension.
    row.0.extend_from_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
    let rows = fold.rows(&mut row)?;
    row.0.extend_from_slice(&(-1_i16).to_be_bytes());
    let statement = format!("copy {table} from stdin (format binary)");
    let mut copy = connection.copy_in_raw(&statement).await?;
    for piece in row.0.chunks(PIECE) {
        copy.send(piece).await?;
    }
    let copied = copy.finish().await.context("the rows were not copied")?;
    ensure!(copied == rows, "{copied} rows were copied instead of {rows}");
    let key = indexes.split_inclusive(';').next().unwrap_or_default();
    connection.execute(sqlx::raw_sql(AssertSqlSafe(key))).await?;
    Ok(())
}
