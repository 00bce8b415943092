//! Read models with one row a stream: the row is the fold of the stream's events.
//!
//! A chunk is folded in memory, so that a stream costs one row written however many of its events the chunk has.

use crate::{
    copy::{Copying, Rows},
    facts::{Facts, sql_partition},
    projection::{ApplyError, Projection},
    rebuild::gather::{Gather, Streams},
};
use async_trait::async_trait;
use events::{Event, Money, Position, StreamKind, Timestamp, log::Record};
use rustc_hash::FxHashMap;
use sqlx::{
    AssertSqlSafe, FromRow, PgConnection, Postgres, postgres::PgArguments, postgres::PgRow,
    query::Query,
};
use std::{collections::hash_map::Entry, marker::PhantomData, sync::Arc};
use uuid::Uuid;

/// A row that is the fold of a stream.
pub(crate) trait StreamRow:
    CopyColumns + for<'r> FromRow<'r, PgRow> + Send + Sync + Unpin + 'static
{
    /// The events of the stream.
    type Event;
    /// The kind of the stream.
    const KIND: StreamKind;
    /// The table.
    const TABLE: &'static str;
    /// Its columns, the key first.
    const COLUMNS: &'static [Column];

    /// The event, if it is of this kind.
    fn event(event: &Event) -> Option<&Self::Event>;
    /// Whether the resource as shown stays the same.
    fn is_bookkeeping(event: &Self::Event) -> bool;
    /// The row before the first event of the stream, which is this; `None` if no stream can begin with it.
    fn begin(head: Head, event: &Self::Event) -> Option<Self>;
    /// Takes the next event in. Total: history is never refused.
    fn apply(&mut self, event: &Self::Event);
    /// Version and times.
    fn head(&mut self) -> HeadMut<'_>;
    /// Binds the columns of all rows as arrays, in the order of [`COLUMNS`](Self::COLUMNS).
    fn bind<'q>(
        rows: &'q [&'q Self],
        query: Query<'q, Postgres, PgArguments>,
    ) -> Query<'q, Postgres, PgArguments>;
}

/// What every row begins with.
pub(crate) struct Head {
    pub id: Uuid,
    pub partition: i32,
    pub time: Timestamp,
}

/// What every event moves.
pub(crate) struct HeadMut<'a> {
    pub version: &'a mut i64,
    pub shown_version: &'a mut i64,
    pub updated_at: &'a mut Timestamp,
}

/// A column, its type, and the type it has on the way.
pub(crate) struct Column {
    pub name: &'static str,
    pub sql: &'static str,
    pub wire: &'static str,
}

/// A Rust type of a column.
pub(crate) trait ColumnType {
    const SQL: &'static str;
    const WIRE: &'static str = Self::SQL;
    type Bound<'a>
    where
        Self: 'a;
    fn bound(&self) -> Self::Bound<'_>;
    /// Puts the binary form of the SQL type into a row.
    fn copy(&self, rows: &mut Rows);
}

macro_rules! column_types {
    ($($rust:ty as $sql:literal: $bound:ty = $by:expr, $copy:expr;)+) => {
        $(impl ColumnType for $rust {
            const SQL: &'static str = $sql;
            type Bound<'a> = $bound;
            fn bound(&self) -> Self::Bound<'_> {
                let by: fn(&Self) -> Self::Bound<'_> = $by;
                by(self)
            }
            fn copy(&self, rows: &mut Rows) {
                let copy: fn(&Self, &mut Rows) = $copy;
                copy(self, rows);
            }
        })+
    };
}
column_types! {
    Uuid as "uuid": Self = |value| *value, |value, rows| rows.put(value.as_bytes());
    i32 as "integer": Self = |value| *value, |value, rows| rows.put(&value.to_be_bytes());
    i64 as "bigint": Self = |value| *value, |value, rows| rows.put(&value.to_be_bytes());
    Option<i64> as "bigint": Self = |value| *value, |value, rows| match value {
        Some(value) => rows.put(&value.to_be_bytes()),
        None => rows.null(),
    };
    bool as "boolean": Self = |value| *value, |value, rows| rows.put(&[u8::from(*value)]);
    Timestamp as "timestamptz": Self = |value| *value, |value, rows| rows.time(*value);
    String as "text": &'a str = |value| value.as_str(), |value, rows| rows.put(value.as_bytes());
    Option<String> as "text": Option<&'a str> = |value| value.as_deref(), |value, rows| match value {
        Some(value) => rows.put(value.as_bytes()),
        None => rows.null(),
    };
}

/// What [`stream_row!`] knows of all columns together.
pub(crate) trait CopyColumns {
    /// Puts them into a row, in the order of [`StreamRow::COLUMNS`].
    fn copy(&self, rows: &mut Rows);
}

/// Declares the row of a stream and its columns, the key first. `json` columns travel as text.
macro_rules! stream_row {
    ($(#[$meta:meta])* $row:ident { $($column:ident: $ty:ty,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, sqlx::FromRow)]
        pub(crate) struct $row { $($column: $ty,)+ }

        impl $row {
            const ROW_COLUMNS: &'static [$crate::streams::Column] = &[$(
                $crate::streams::Column {
                    name: stringify!($column),
                    sql: <$ty as $crate::streams::ColumnType>::SQL,
                    wire: <$ty as $crate::streams::ColumnType>::WIRE,
                },
            )+];

            fn bind_columns<'q>(
                rows: &'q [&'q Self],
                query: sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>,
            ) -> sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments> {
                use $crate::streams::ColumnType as _;
                query $(.bind(rows.iter().map(|row| row.$column.bound()).collect::<Vec<_>>()))+
            }
        }

        impl $crate::streams::CopyColumns for $row {
            fn copy(&self, rows: &mut $crate::copy::Rows) {
                rows.begin(Self::ROW_COLUMNS.len());
                $($crate::streams::ColumnType::copy(&self.$column, rows);)+
            }
        }
    };
}
pub(crate) use stream_row;

/// The table of one version.
pub(crate) struct Table<R> {
    select: Arc<str>,
    insert: Arc<str>,
    update: Arc<str>,
    copy: Arc<str>,
    row: PhantomData<fn() -> R>,
}

impl<R> Clone for Table<R> {
    fn clone(&self) -> Self {
        let share = |sql: &Arc<str>| Arc::clone(sql);
        let Self { select, insert, update, copy, row } = self;
        let [select, insert, update, copy] = [select, insert, update, copy].map(share);
        Self { select, insert, update, copy, row: *row }
    }
}

impl<R: StreamRow> Table<R> {
    pub fn new(schema: &str) -> Self {
        let list = |part: fn(&Column) -> String, columns: &[Column]| {
            columns.iter().map(part).collect::<Vec<_>>().join(", ")
        };
        let (table, key) = (R::TABLE, R::COLUMNS[0].name);
        let names = list(|column| column.name.to_owned(), R::COLUMNS);
        let read = list(|c| format!("{}::{} as {0}", c.name, c.wire), R::COLUMNS);
        let given = list(|c| format!("u.{}::{}", c.name, c.sql), R::COLUMNS);
        let set = list(|c| format!("{} = u.{0}::{}", c.name, c.sql), &R::COLUMNS[1..]);
        let arrays: Vec<_> =
            R::COLUMNS.iter().zip(1..).map(|(c, n)| format!("${n}::{}[]", c.wire)).collect();
        let rows = format!("unnest({}) as u({names})", arrays.join(", "));
        Self {
            select: format!("select {read} from {schema}.{table} where {key} = any($1)").into(),
            insert: format!("insert into {schema}.{table} ({names}) select {given} from {rows}")
                .into(),
            update: format!(
                "update {schema}.{table} t set {set} from {rows} where t.{key} = u.{key}"
            )
            .into(),
            copy: format!("copy {schema}.{table} ({names}) from stdin (format binary)").into(),
            row: PhantomData,
        }
    }

    /// The rows of these streams, as far as there are any.
    pub async fn load(
        &self,
        connection: &mut PgConnection,
        ids: &[Uuid],
    ) -> Result<Vec<(Uuid, Folded<R>)>, ApplyError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let loaded: Vec<PgRow> = sqlx::query(AssertSqlSafe(Arc::clone(&self.select)))
            .bind(ids)
            .fetch_all(connection)
            .await?;
        let folded = |row: &PgRow| {
            let id = sqlx::Row::try_get(row, 0)?;
            Ok((id, Folded { row: R::from_row(row)?, new: false }))
        };
        loaded.iter().map(folded).collect()
    }

    async fn write(
        &self,
        connection: &mut PgConnection,
        statement: &Arc<str>,
        rows: &[&R],
    ) -> Result<(), ApplyError> {
        if rows.is_empty() {
            return Ok(());
        }
        let query = R::bind(rows, sqlx::query(AssertSqlSafe(Arc::clone(statement))));
        let written = query.execute(connection).await?.rows_affected();
        written_all(written, rows.len())
    }

    /// Writes rows that are there already.
    pub async fn update(
        &self,
        connection: &mut PgConnection,
        rows: &[&R],
    ) -> Result<(), ApplyError> {
        self.write(connection, &self.update, rows).await
    }

    /// Copies rows that are not there yet.
    pub async fn copy(&self, connection: &mut PgConnection, rows: &[&R]) -> Result<(), ApplyError> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut copying = Copying::begin(connection, &self.copy).await?;
        for row in rows {
            row.copy(&mut copying.rows);
            copying.pass_on().await?;
        }
        written_all(copying.finish().await?, rows.len())
    }
}

fn written_all(written: u64, rows: usize) -> Result<(), ApplyError> {
    if written == rows as u64 { Ok(()) } else { Err(sqlx::Error::RowNotFound.into()) }
}

#[async_trait]
impl<R: StreamRow> Projection for Table<R> {
    fn takes(&self, kind: StreamKind) -> bool {
        kind == R::KIND
    }

    async fn apply(
        &self,
        connection: &mut PgConnection,
        facts: &Facts<'_>,
    ) -> Result<(), ApplyError> {
        let loaded = self.load(connection, &begun_before(R::KIND, facts)).await?;
        let mut rows: FxHashMap<Uuid, Folded<R>> = loaded.into_iter().collect();
        for fact in facts.iter() {
            let Some(event) = R::event(&fact.event) else { continue };
            let (at, record) = (fact.position, &fact.record);
            let folded = match rows.entry(record.stream.id) {
                Entry::Occupied(folded) => folded.into_mut(),
                Entry::Vacant(vacant) => vacant.insert(Folded::begin(at, record, event)?),
            };
            folded.take(at, record, event)?;
        }
        // In the order of the key: neighbours in the index are written together.
        let mut rows: Vec<_> = rows.into_iter().collect();
        rows.sort_unstable_by_key(|(id, _)| *id);
        let (new, old): (Vec<_>, Vec<_>) = rows.iter().partition(|(_, folded)| folded.new);
        let new: Vec<_> = new.into_iter().map(|(_, folded)| &folded.row).collect();
        let old: Vec<_> = old.into_iter().map(|(_, folded)| &folded.row).collect();
        // A plain insert: a row that is there already means that its stream began twice.
        self.write(connection, &self.insert, &new).await?;
        self.update(connection, &old).await
    }

    fn gather(&self) -> Box<dyn Gather> {
        Box::new(Streams::new(self.clone()))
    }
}

/// A row on its way from event to event.
pub(crate) struct Folded<R> {
    pub row: R,
    /// Whether it is not in the table yet.
    pub new: bool,
}

/// The streams of a kind whose first event among these facts is not their first.
fn begun_before(kind: StreamKind, facts: &Facts<'_>) -> Vec<Uuid> {
    let mut seen = FxHashMap::default();
    for fact in facts.iter().filter(|fact| fact.record.stream.kind == kind) {
        seen.entry(fact.record.stream.id).or_insert(fact.record.metadata.version > 1);
    }
    let mut ids: Vec<_> =
        seen.into_iter().filter_map(|(id, before)| before.then_some(id)).collect();
    ids.sort_unstable();
    ids
}

impl<R: StreamRow> Folded<R> {
    /// The row before the first event of its stream, which is this.
    pub fn begin(at: Position, record: &Record, event: &R::Event) -> Result<Self, ApplyError> {
        let partition = sql_partition(at.partition);
        let head = Head { id: record.stream.id, partition, time: record.time };
        let row = R::begin(head, event).ok_or_else(|| {
            stop(at, record, format!("begins with {} at {at}", record.event_type))
        })?;
        Ok(Self { row, new: true })
    }

    /// Takes the next event of the stream in.
    pub fn take(
        &mut self,
        at: Position,
        record: &Record,
        event: &R::Event,
    ) -> Result<(), ApplyError> {
        let found = i64::try_from(record.metadata.version).unwrap_or(i64::MAX);
        let HeadMut { version, shown_version, updated_at } = self.row.head();
        if version.checked_add(1) != Some(found) {
            let problem = format!("has version {found} at {at} after version {version}");
            return Err(stop(at, record, problem));
        }
        *version = found;
        if !R::is_bookkeeping(event) {
            *shown_version = found;
            *updated_at = record.time;
        }
        self.row.apply(event);
        Ok(())
    }
}

fn stop(at: Position, record: &Record, problem: String) -> ApplyError {
    ApplyError::Stream { partition: at.partition, stream: record.stream, problem }
}

/// An amount of a row; `None` if the currency is none.
pub(crate) fn money(amount: i64, currency: &str) -> Option<Money> {
    Some(Money::new(amount, currency.parse().ok()?))
}
