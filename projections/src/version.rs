//! Versions of read models. Each has its tables in a schema of its own.

use crate::{
    ReadModel,
    build::Build,
    checkpoint, database,
    facts::sql_partition,
    golden::{self, Why},
    projection::{Projection, Template},
    rebuild::{Manner, indexes::Indexes},
};
use sqlx::{AssertSqlSafe, FromRow, PgConnection, PgPool};
use std::{collections::BTreeMap, sync::Arc};

/// A version of a read model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct VersionId {
    pub model: ReadModel,
    pub number: i32,
}

impl VersionId {
    pub fn schema(self) -> String {
        format!("{}_v{}", self.model, self.number)
    }
}

impl std::fmt::Display for VersionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.schema())
    }
}

/// A version that this program can feed.
pub(crate) struct Version {
    pub id: VersionId,
    pub building: bool,
    /// Which indexes it has. Only a version with all of them is fed event by event.
    pub indexes: Indexes,
    /// Whether its rebuild is paused.
    pub paused: bool,
    pub manner: Manner,
    /// The result of comparing it with the serving version.
    pub verified: Option<Verified>,
    pub writer: Arc<dyn Projection>,
}

/// The result of comparing a new version with the serving one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verified {
    /// Their rows are equal.
    Equal,
    /// Their rows differ.
    Different,
    /// Another build wrote the serving version, so its rows were not compared.
    Changed,
    /// One of the two has parked streams, so their rows were not compared.
    Parked,
    /// A build with the same revision that makes other rows wrote the serving version.
    Undeclared,
}

impl Verified {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Different => "different",
            Self::Changed => "changed",
            Self::Parked => "parked",
            Self::Undeclared => "undeclared",
        }
    }

    /// Whether the new version may serve without an operator's consent.
    pub fn lets_serve(self) -> bool {
        !matches!(self, Self::Different | Self::Undeclared)
    }

    pub fn named(name: &str) -> Option<Self> {
        let all = [Self::Equal, Self::Different, Self::Changed, Self::Parked, Self::Undeclared];
        all.into_iter().find(|it| it.as_str() == name)
    }
}

/// A row of `control.version`.
#[derive(FromRow)]
struct VersionRow {
    projection: String,
    version: i32,
    building: bool,
    indexes: String,
    paused: bool,
    #[sqlx(flatten)]
    manner: Manner,
    verified: Option<String>,
}

impl VersionRow {
    fn version(&self, id: VersionId, build: Build) -> Version {
        Version {
            id,
            building: self.building,
            indexes: Indexes::named(&self.indexes),
            paused: self.paused,
            manner: self.manner,
            verified: self.verified.as_deref().and_then(Verified::named),
            writer: build.writer(id.model, &id.schema()),
        }
    }
}

impl Version {
    /// Whether a task that works on this version may go on with `other` in its place.
    fn is(&self, other: &Self) -> bool {
        // Making the key does not count: a bulk fill makes it while it runs.
        let state = |it: &Self| {
            let whole = it.indexes == Indexes::All;
            (it.building, whole, it.paused, it.manner, it.verified)
        };
        state(self) == state(other)
    }
}

/// The versions that a program may feed, and those that it must not.
#[derive(Default)]
pub(crate) struct Feedable {
    pub versions: BTreeMap<VersionId, Arc<Version>>,
    /// The versions that this program must not feed, why, and whether they serve.
    pub foreign: BTreeMap<VersionId, (Why, bool)>,
}

/// Why the read models could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The shared tables could not be made.
    #[error(transparent)]
    Migrate(#[from] database::DatabaseError),
    /// The tables of a read model could not be made.
    #[error("the tables of the read models could not be made")]
    Database(#[from] sqlx::Error),
    /// The database belongs to a log with another number of partitions.
    #[error(
        "the read models belong to a log with {found} partitions, but this log has {partitions}"
    )]
    Partitions {
        /// Partitions of the log.
        partitions: u32,
        /// Partitions with checkpoints.
        found: i64,
    },
}

/// The key of the advisory lock held while versions are made or dropped. Nothing else in this
/// database uses this number.
const LOCK: i64 = 0x6f72_6465_726c_6f67;

/// Migrates the database, and makes the first version of each read model if there is none. That
/// version serves at once. Several nodes may run it at the same time, and it may run again.
///
/// # Errors
/// When the database refuses, or belongs to a log with another number of partitions.
pub async fn prepare(pool: &PgPool, partitions: u32) -> Result<(), PrepareError> {
    database::migrate(pool).await?;
    let pool = pool.clone();
    database::detached(async move { ensure(&pool, partitions).await }).await
}

async fn ensure(pool: &PgPool, partitions: u32) -> Result<(), PrepareError> {
    let mut tx = pool.begin().await?;
    // This commit must survive a crash of the server, whatever the pool's sessions set: it happens
    // once at the start, and nothing would repeat it.
    sqlx::query("set local synchronous_commit to on").execute(&mut *tx).await?;
    lock(&mut tx).await?;
    let found: i64 = sqlx::query_scalar("select count(distinct partition) from control.checkpoint")
        .fetch_one(&mut *tx)
        .await?;
    if found > 0 && found != i64::from(partitions) {
        return Err(PrepareError::Partitions { partitions, found });
    }
    for model in ReadModel::ALL {
        let first = VersionId { model, number: 1 };
        if next_number(&mut tx, model).await? == first.number {
            create(&mut tx, first, partitions, true, Indexes::All).await?;
            show(&mut tx, first).await?;
        }
    }
    tx.commit().await?;
    Ok(())
}

/// Waits for others that make or drop versions, and keeps them out until the transaction ends.
pub(crate) async fn lock(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("select pg_advisory_xact_lock($1)").bind(LOCK).execute(connection).await?;
    Ok(())
}

/// The next free version number.
pub(crate) async fn next_number(
    connection: &mut PgConnection,
    model: ReadModel,
) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar(
        "select coalesce(max(version), 0) + 1 from control.version where projection = $1",
    )
    .bind(model.as_str())
    .fetch_one(connection)
    .await
}

/// Makes a version beside the serving one. It has no indexes, so that it can be filled in bulk.
pub(crate) async fn create_beside(
    connection: &mut PgConnection,
    id: VersionId,
    partitions: u32,
) -> Result<(), sqlx::Error> {
    create(connection, id, partitions, false, Indexes::None).await
}

/// Makes the tables of a version, and its checkpoints at the beginning of the log.
async fn create(
    connection: &mut PgConnection,
    id: VersionId,
    partitions: u32,
    serving: bool,
    indexes: Indexes,
) -> Result<(), sqlx::Error> {
    let (schema, template) = (id.schema(), id.model.template());
    let indexes_sql = if indexes == Indexes::All { template.indexes } else { "" };
    execute(&mut *connection, &schema, template.tables, indexes_sql).await?;
    sqlx::query(
        "insert into control.version (projection, version, schema_name, fingerprint, state, \
         serving, served_at, indexes) \
         values ($1, $2, $3, $4, case when $5 then 'live' else 'building' end, $5, case when $5 \
         then now() end, $6)",
    )
    .bind(id.model.as_str())
    .bind(id.number)
    .bind(schema)
    .bind(template.fingerprint())
    .bind(serving)
    .bind(indexes.as_str())
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "insert into control.checkpoint (projection, version, partition, serving) \
         select $1, $2, partition, $4 from generate_series(0, $3 - 1) as partition",
    )
    .bind(id.model.as_str())
    .bind(id.number)
    .bind(sql_partition(events::Partition(partitions)))
    .bind(serving)
    .execute(&mut *connection)
    .await?;
    golden::mark(connection, id).await
}

/// Makes the tables and indexes of a template in a schema that belongs to no version.
pub(crate) async fn make_tables(
    connection: &mut PgConnection,
    schema: &str,
    template: Template,
) -> Result<(), sqlx::Error> {
    execute(connection, schema, template.tables, template.indexes).await
}

async fn execute(
    connection: &mut PgConnection,
    schema: &str,
    tables: &str,
    indexes: &str,
) -> Result<(), sqlx::Error> {
    let tables = format!(
        "create schema {schema}; set local search_path to {schema}; {tables} {indexes} \
         set local search_path to default;"
    );
    sqlx::raw_sql(AssertSqlSafe(tables)).execute(connection).await?;
    Ok(())
}

/// Points the views at a version.
pub(crate) async fn show(connection: &mut PgConnection, id: VersionId) -> Result<(), sqlx::Error> {
    let views = format!(
        "set local search_path to {}; {} set local search_path to default;",
        id.schema(),
        id.model.template().views
    );
    sqlx::raw_sql(AssertSqlSafe(views)).execute(connection).await?;
    Ok(())
}

/// Drops a version with its tables and checkpoints. A worker that still feeds it finds no
/// checkpoint and stops.
pub(crate) async fn drop_version(
    connection: &mut PgConnection,
    id: VersionId,
) -> Result<(), sqlx::Error> {
    // Lock the checkpoints in the order in which feeds lock them. The cascading delete would lock
    // them in any order.
    checkpoint::of(connection, id, true).await?;
    sqlx::query("delete from control.version where projection = $1 and version = $2")
        .bind(id.model.as_str())
        .bind(id.number)
        .execute(&mut *connection)
        .await?;
    sqlx::query("delete from control.lease where projection = $1 and version = $2")
        .bind(id.model.as_str())
        .bind(id.number)
        .execute(&mut *connection)
        .await?;
    let drop = format!("drop schema {} cascade", id.schema());
    sqlx::raw_sql(AssertSqlSafe(drop)).execute(connection).await?;
    Ok(())
}

/// The versions of `models` that `build` may feed. Versions in `known` that have not changed are
/// returned as they are.
pub(crate) async fn feedable(
    pool: &PgPool,
    models: &[ReadModel],
    build: Build,
    known: &BTreeMap<VersionId, Arc<Version>>,
) -> Result<Feedable, sqlx::Error> {
    let standings = golden::known(pool, build, models).await?;
    let rows: Vec<VersionRow> = sqlx::query_as(
        "select projection, version, state = 'building' as building, indexes, paused, gentle, \
         verify_only, verified from control.version",
    )
    .fetch_all(pool)
    .await?;
    let mut feedable = Feedable::default();
    for row in rows {
        let model = row.projection.parse().ok().filter(|it| models.contains(it));
        let Some(id) = model.map(|model| VersionId { model, number: row.version }) else {
            continue;
        };
        // A version that was made since the standings were read is taken up the next time.
        let Some(standing) = standings.get(&id) else { continue };
        if let Some(why) = standing.why {
            feedable.foreign.insert(id, (why, standing.serving));
            continue;
        }
        let version = row.version(id, build);
        let version = match known.get(&id).filter(|known| known.is(&version)) {
            Some(known) => Arc::clone(known),
            None => Arc::new(version),
        };
        feedable.versions.insert(id, version);
    }
    Ok(feedable)
}
