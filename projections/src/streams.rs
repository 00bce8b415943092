//! Read models with one row a stream: the row is the fold of the stream's events.
//!
//! A chunk is folded in memory, so that a stream costs one row written however many of its events the chunk has.

use crate::{
    facts::{Fact, Facts, sql_partition},
    projection::{ApplyError, Projection},
};
use async_trait::async_trait;
use events::{Event, Money, StreamKind, Timestamp};
use rustc_hash::FxHashMap;
use sqlx::{
    AssertSqlSafe, FromRow, PgConnection, Postgres, postgres::PgArguments, postgres::PgRow,
    query::Query,
};
use std::{collections::hash_map::Entry, marker::PhantomData, sync::Arc};
use uuid::Uuid;

/// A row that is the fold of a stream.
pub(crate) trait StreamRow:
    for<'r> FromRow<'r, PgRow> + Send + Sync + Unpin + 'static
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
}

macro_rules! column_types {
    ($($rust:ty as $sql:literal: $bound:ty = $by:expr;)+) => {
        $(impl ColumnType for $rust {
            const SQL: &'static str = $sql;
            type Bound<'a> = $bound;
            fn bound(&self) -> Self::Bound<'_> {
                let by: fn(&Self) -> Self::Bound<'_> = $by;
                by(self)
            }
        })+
    };
}
column_types! {
    Uuid as "uuid": Self = |value| *value;
    i32 as "integer": Self = |value| *value;
    i64 as "bigint": Self = |value| *value;
    Option<i64> as "bigint": Self = |value| *value;
    bool as "boolean": Self = |value| *value;
    Timestamp as "timestamptz": Self = |value| *value;
    String as "text": &'a str = |value| value.as_str();
    Option<String> as "text": Option<&'a str> = |value| value.as_deref();
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
    };
}
pub(crate) use stream_row;

/// The table of one version.
pub(crate) struct Table<R> {
    select: Arc<str>,
    insert: Arc<str>,
    update: Arc<str>,
    row: PhantomData<fn() -> R>,
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
            row: PhantomData,
        }
    }

    /// The rows of streams that began before these facts.
    async fn load(
        &self,
        connection: &mut PgConnection,
        facts: &Facts<'_>,
    ) -> Result<FxHashMap<Uuid, Folded<R>>, ApplyError> {
        let ids = begun_before(R::KIND, facts);
        let mut rows = FxHashMap::default();
        if ids.is_empty() {
            return Ok(rows);
        }
        let loaded: Vec<PgRow> = sqlx::query(AssertSqlSafe(Arc::clone(&self.select)))
            .bind(&ids)
            .fetch_all(connection)
            .await?;
        rows.reserve(loaded.len());
        for row in &loaded {
            let id = sqlx::Row::try_get(row, 0)?;
            rows.insert(id, Folded { row: R::from_row(row)?, new: false });
        }
        Ok(rows)
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
        if written != rows.len() as u64 {
            return Err(sqlx::Error::RowNotFound.into());
        }
        Ok(())
    }
}

#[async_trait]
impl<R: StreamRow> Projection for Table<R> {
    async fn apply(
        &self,
        connection: &mut PgConnection,
        facts: &Facts<'_>,
    ) -> Result<(), ApplyError> {
        let mut rows = self.load(connection, facts).await?;
        for fact in facts.iter() {
            if let Some(event) = R::event(&fact.event) {
                fold(&mut rows, fact, event)?;
            }
        }
        // In the order of the key: neighbours in the index are written together.
        let mut rows: Vec<_> = rows.into_iter().collect();
        rows.sort_unstable_by_key(|(id, _)| *id);
        let (new, old): (Vec<_>, Vec<_>) = rows.iter().partition(|(_, folded)| folded.new);
        let new: Vec<_> = new.into_iter().map(|(_, folded)| &folded.row).collect();
        let old: Vec<_> = old.into_iter().map(|(_, folded)| &folded.row).collect();
        // A plain insert: a row that is there already means that its stream began twice.
        self.write(connection, &self.insert, &new).await?;
        self.write(connection, &self.update, &old).await
    }
}

struct Folded<R> {
    row: R,
    new: bool,
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

fn fold<R: StreamRow>(
    rows: &mut FxHashMap<Uuid, Folded<R>>,
    fact: &Fact,
    event: &R::Event,
) -> Result<(), ApplyError> {
    let (record, at) = (&fact.record, fact.position);
    let stop =
        |problem| ApplyError::Stream { partition: at.partition, stream: record.stream, problem };
    let folded = match rows.entry(record.stream.id) {
        Entry::Occupied(folded) => folded.into_mut(),
        Entry::Vacant(vacant) => {
            let partition = sql_partition(at.partition);
            let head = Head { id: record.stream.id, partition, time: record.time };
            let row = R::begin(head, event)
                .ok_or_else(|| stop(format!("begins with {} at {at}", record.event_type)))?;
            vacant.insert(Folded { row, new: true })
        }
    };
    let found = i64::try_from(record.metadata.version).unwrap_or(i64::MAX);
    let HeadMut { version, shown_version, updated_at } = folded.row.head();
    if version.checked_add(1) != Some(found) {
        return Err(stop(format!("has version {found} at {at} after version {version}")));
    }
    *version = found;
    if !R::is_bookkeeping(event) {
        *shown_version = found;
        *updated_at = record.time;
    }
    folded.row.apply(event);
    Ok(())
}

/// An amount of a row; `None` if the currency is none.
pub(crate) fn money(amount: i64, currency: &str) -> Option<Money> {
    Some(Money::new(amount, currency.parse().ok()?))
}
