//! Read models with one row a stream. The row is the fold of the stream's events.
//!
//! A chunk is folded in memory, so that each stream costs one written row, however many of its
//! events the chunk has.

use crate::{
    QueryError,
    copy::{Copying, Rows},
    facts::{Facts, sql_partition},
    projection::{ApplyError, Projection},
    rebuild::gather::{Gather, Streams},
};
use async_trait::async_trait;
use events::{Event, Money, Position, StreamKind, Timestamp, log::Record};
use rustc_hash::FxHashMap;
use sqlx::{
    AssertSqlSafe, FromRow, PgConnection, PgPool, Postgres, QueryBuilder, postgres::PgArguments,
    postgres::PgRow, query::Query,
};
use std::{collections::hash_map::Entry, marker::PhantomData, sync::Arc};
use uuid::Uuid;

/// What [`stream_row!`] writes: how a row is stored.
pub(crate) trait StoredRow:
    for<'r> FromRow<'r, PgRow> + Send + Sync + Unpin + 'static
{
    /// The events of the stream.
    type Event;
    /// The kind of the stream.
    const KIND: StreamKind;
    /// The table.
    const TABLE: &'static str;
    /// The columns of the table, the key first.
    const COLUMNS: &'static [Column];

    /// The event, if it belongs to a stream of this kind.
    fn event(event: &Event) -> Option<&Self::Event>;
    /// Whether the event changes nothing that queries show.
    fn is_bookkeeping(event: &Self::Event) -> bool;
    /// The columns that the fold itself maintains.
    fn head(&mut self) -> HeadMut<'_>;
    /// Binds each column of all rows as one array, in the order of [`COLUMNS`](Self::COLUMNS).
    fn bind<'q>(
        rows: &'q [&'q Self],
        query: Query<'q, Postgres, PgArguments>,
    ) -> Query<'q, Postgres, PgArguments>;
    /// Encodes the row for `COPY`, its columns in the order of [`COLUMNS`](Self::COLUMNS).
    fn copy(&self, rows: &mut Rows);
}

/// A row that is the fold of the events of a stream.
pub(crate) trait StreamRow: StoredRow {
    /// The row before `event`, the first one of the stream. `None` if no stream can begin with it.
    fn begin(head: Head, event: &Self::Event) -> Option<Self>;
    /// Applies the next event. It never fails: history is never refused.
    fn apply(&mut self, event: &Self::Event);
}

/// The key, the partition and the time of the first event, for a new row.
pub(crate) struct Head {
    pub id: Uuid,
    pub partition: i32,
    pub time: Timestamp,
}

/// The columns that the fold itself maintains: `version` with every event, the others with every
/// event that is not bookkeeping.
pub(crate) struct HeadMut<'a> {
    pub version: &'a mut i64,
    pub shown_version: &'a mut i64,
    pub updated_at: &'a mut Timestamp,
}

/// A column, its SQL type, and the SQL type in which it is sent.
pub(crate) struct Column {
    pub name: &'static str,
    pub sql: &'static str,
    pub wire: &'static str,
}

impl Column {
    pub const fn of<T: ColumnType>(name: &'static str) -> Self {
        Self { name, sql: T::SQL, wire: T::WIRE }
    }
}

/// A Rust type that a column can have.
pub(crate) trait ColumnType {
    const SQL: &'static str;
    const WIRE: &'static str = Self::SQL;
    type Bound<'a>
    where
        Self: 'a;
    fn bound(&self) -> Self::Bound<'_>;
    /// Adds the value to a row in the binary form of its SQL type.
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

/// Declares the row of a stream, and the row of the view in schema `read` with the same name as the
/// table. The first column is the key. Columns in `shown` are in both rows, columns in `hidden`
/// only in the table. A column whose type differs in the view has the view's type after `as`.
macro_rules! stream_row {
    (
        $row:ident in $table:literal, from $kind:ident($event:ty), shown as $shown:ident {
            shown { $key:ident: $key_ty:ty, $($column:ident: $ty:ty $(as $view_ty:ty)?,)+ }
            hidden { $($hidden:ident: $hidden_ty:ty,)+ }
        }
    ) => {
        #[derive(Clone, Debug, sqlx::FromRow)]
        pub(crate) struct $row {
            $key: $key_ty,
            $($column: $ty,)+
            $($hidden: $hidden_ty,)+
        }

        /// A row of the view.
        #[derive(sqlx::FromRow)]
        pub(super) struct $shown {
            pub $key: $key_ty,
            $(pub $column: $crate::streams::view_type!($ty $(, $view_ty)?),)+
        }

        impl $shown {
            /// Begins a query of these rows. It names the columns: the view of a later version may
            /// have more.
            pub fn select() -> sqlx::QueryBuilder<sqlx::Postgres> {
                sqlx::QueryBuilder::new(concat!(
                    "select ",
                    stringify!($key),
                    $(", ", stringify!($column),)+
                    " from read.",
                    $table
                ))
            }
        }

        impl $crate::streams::StoredRow for $row {
            type Event = $event;
            const KIND: events::StreamKind = events::StreamKind::$kind;
            const TABLE: &'static str = $table;
            const COLUMNS: &'static [$crate::streams::Column] = &[
                $crate::streams::Column::of::<$key_ty>(stringify!($key)),
                $($crate::streams::Column::of::<$ty>(stringify!($column)),)+
                $($crate::streams::Column::of::<$hidden_ty>(stringify!($hidden)),)+
            ];

            fn event(event: &events::Event) -> Option<&$event> {
                match event {
                    events::Event::$kind(event) => Some(event),
                    _ => None,
                }
            }

            fn is_bookkeeping(event: &$event) -> bool {
                event.is_bookkeeping()
            }

            fn head(&mut self) -> $crate::streams::HeadMut<'_> {
                $crate::streams::HeadMut {
                    version: &mut self.version,
                    shown_version: &mut self.shown_version,
                    updated_at: &mut self.updated_at,
                }
            }

            fn bind<'q>(
                rows: &'q [&'q Self],
                query: sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>,
            ) -> sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments> {
                use $crate::streams::ColumnType as _;
                query
                    .bind(rows.iter().map(|row| row.$key.bound()).collect::<Vec<_>>())
                    $(.bind(rows.iter().map(|row| row.$column.bound()).collect::<Vec<_>>()))+
                    $(.bind(rows.iter().map(|row| row.$hidden.bound()).collect::<Vec<_>>()))+
            }

            fn copy(&self, rows: &mut $crate::copy::Rows) {
                use $crate::streams::ColumnType;
                rows.begin(Self::COLUMNS.len());
                ColumnType::copy(&self.$key, rows);
                $(ColumnType::copy(&self.$column, rows);)+
                $(ColumnType::copy(&self.$hidden, rows);)+
            }
        }
    };
}
pub(crate) use stream_row;

/// The type of a column in the view: the second one, if it is given.
macro_rules! view_type {
    ($ty:ty) => {
        $ty
    };
    ($ty:ty, $view_ty:ty) => {
        $view_ty
    };
}
pub(crate) use view_type;

/// The table of a version, for rows that are folds of streams.
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

    /// The rows of these streams. Streams without a row are left out.
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

    /// Updates rows that the table has.
    pub async fn update(
        &self,
        connection: &mut PgConnection,
        rows: &[&R],
    ) -> Result<(), ApplyError> {
        self.write(connection, &self.update, rows).await
    }

    /// Copies rows that the table does not have yet.
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
        // In the order of the key, so that neighbours in the index are written together.
        let mut rows: Vec<_> = rows.into_iter().collect();
        rows.sort_unstable_by_key(|(id, _)| *id);
        let (new, old): (Vec<_>, Vec<_>) = rows.iter().partition(|(_, folded)| folded.new);
        let new: Vec<_> = new.into_iter().map(|(_, folded)| &folded.row).collect();
        let old: Vec<_> = old.into_iter().map(|(_, folded)| &folded.row).collect();
        // A plain insert: a row that the table already has means that its stream began twice.
        self.write(connection, &self.insert, &new).await?;
        self.update(connection, &old).await
    }

    fn gather(&self) -> Box<dyn Gather> {
        Box::new(Streams::new(self.clone()))
    }
}

/// A row that is being folded.
pub(crate) struct Folded<R> {
    pub row: R,
    /// Whether the table does not have the row yet.
    pub new: bool,
}

/// The streams of a kind that began before these facts.
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
    /// The row before `event`, the first one of its stream.
    pub fn begin(at: Position, record: &Record, event: &R::Event) -> Result<Self, ApplyError> {
        let partition = sql_partition(at.partition);
        let head = Head { id: record.stream.id, partition, time: record.time };
        let row = R::begin(head, event).ok_or_else(|| {
            stop(at, record, format!("begins with {} at {at}", record.event_type))
        })?;
        Ok(Self { row, new: true })
    }

    /// Applies the next event of the stream.
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

/// An amount in a row; `None` if the currency is unknown.
pub(crate) fn money(amount: i64, currency: &str) -> Option<Money> {
    Some(Money::new(amount, currency.parse().ok()?))
}

/// Runs the query of a list: the rows newest first by `time` and then `id`, from behind `after` on,
/// one more than `limit`, as [`Page::of`](crate::Page::of) expects.
pub(crate) async fn newest_first<R, T>(
    pool: &PgPool,
    mut query: QueryBuilder<Postgres>,
    [time, id]: [&str; 2],
    after: Option<(Timestamp, Uuid)>,
    limit: u32,
) -> Result<Vec<T>, QueryError>
where
    R: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    T: TryFrom<R, Error = QueryError>,
{
    if let Some((after_time, after_id)) = after {
        query.push(format_args!(" and ({time}, {id}) < (")).push_bind(after_time);
        query.push(", ").push_bind(after_id).push(")");
    }
    query.push(format_args!(" order by {time} desc, {id} desc limit "));
    query.push_bind(i64::from(limit) + 1);
    let rows: Vec<R> = query.build_query_as().fetch_all(pool).await?;
    rows.into_iter().map(T::try_from).collect()
}
