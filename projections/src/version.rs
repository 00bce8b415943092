//! Versions of read models: each has its tables in a schema of its own.

use crate::{ReadModel, database, facts::sql_partition, projection::Projection};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};
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
    pub writer: Arc<dyn Projection>,
}

/// Why the read models could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The shared tables could not be made.
    #[error(transparent)]
    Migrate(#[from] database::DatabaseError),
    /// The tables of a read model could not be made.
    #[error("the tables of the read models could not be made")]
    Database(#[from] sqlx::Error),
    /// The database belongs to a log of more partitions.
    #[error("the read models are of a log with {found} partitions, and this one has {partitions}")]
    Partitions {
        /// Partitions of the log.
        partitions: u32,
        /// Partitions with checkpoints.
        found: i64,
    },
}

/// Serialises those who make and drop versions; any number that nothing else in this database uses.
const LOCK: i64 = 0x6f72_6465_726c_6f67;

/// Migrates the database and makes what is missing: the first version of each read model, which serves at once, and a
/// version beside the serving one if that was written by other code. Safe to run on many nodes at once, and again.
///
/// # Errors
/// When the database refuses, or belongs to a log of another shape.
pub async fn prepare(pool: &PgPool, partitions: u32) -> Result<(), PrepareError> {
    database::migrate(pool).await?;
    let pool = pool.clone();
    database::detached(async move { ensure(&pool, partitions).await }).await
}

async fn ensure(pool: &PgPool, partitions: u32) -> Result<(), PrepareError> {
    let mut tx = pool.begin().await?;
    // Whatever the pool's sessions do: this happens once a start, and nobody would do it again after a crash of the server.
    sqlx::query("set local synchronous_commit to on").execute(&mut *tx).await?;
    lock(&mut tx).await?;
    let found: i64 = sqlx::query_scalar("select count(distinct partition) from control.checkpoint")
        .fetch_one(&mut *tx)
        .await?;
    if found > 0 && found != i64::from(partitions) {
        return Err(PrepareError::Partitions { partitions, found });
    }
    for model in ReadModel::ALL {
        let fingerprints: Vec<String> =
            sqlx::query_scalar("select fingerprint from control.version where projection = $1")
                .bind(model.as_str())
                .fetch_all(&mut *tx)
                .await?;
        if fingerprints.is_empty() {
            create(&mut tx, VersionId { model, number: 1 }, partitions, true).await?;
            show(&mut tx, VersionId { model, number: 1 }).await?;
        } else if !fingerprints.contains(&model.template().fingerprint()) {
            abandon_building(&mut tx, model).await?;
            let number = next_number(&mut tx, model).await?;
            create(&mut tx, VersionId { model, number }, partitions, false).await?;
            tracing::info!(%model, number, "written by other code, so it is built anew");
        }
    }
    tx.commit().await?;
    Ok(())
}

/// Waits for whoever makes or drops versions.
pub(crate) async fn lock(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("select pg_advisory_xact_lock($1)").bind(LOCK).execute(connection).await?;
    Ok(())
}

/// The number after all versions there are.
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

/// Drops a version that other code was building: this code cannot go on with it, and there is one at a time.
async fn abandon_building(
    connection: &mut PgConnection,
    model: ReadModel,
) -> Result<(), sqlx::Error> {
    let building: Option<i32> = sqlx::query_scalar(
        "select version from control.version where projection = $1 and state = 'building'",
    )
    .bind(model.as_str())
    .fetch_optional(&mut *connection)
    .await?;
    match building {
        Some(number) => drop_version(connection, VersionId { model, number }).await,
        None => Ok(()),
    }
}

/// Makes the tables of a version and its checkpoints at the beginning of the log.
pub(crate) async fn create(
    connection: &mut PgConnection,
    id: VersionId,
    partitions: u32,
    serving: bool,
) -> Result<(), sqlx::Error> {
    let (schema, template) = (id.schema(), id.model.template());
    let tables = format!(
        "create schema {schema}; set local search_path to {schema}; {} {} set local search_path \
         to default;",
        template.tables, template.indexes
    );
    sqlx::raw_sql(AssertSqlSafe(tables)).execute(&mut *connection).await?;
    sqlx::query(
        "insert into control.version (projection, version, schema_name, fingerprint, state, \
         serving, served_at) \
         values ($1, $2, $3, $4, case when $5 then 'live' else 'building' end, $5, case when $5 \
         then now() end)",
    )
    .bind(id.model.as_str())
    .bind(id.number)
    .bind(schema)
    .bind(template.fingerprint())
    .bind(serving)
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
    .execute(connection)
    .await?;
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

/// Drops a version with all it has. A worker that still feeds it finds no checkpoint and stops.
pub(crate) async fn drop_version(
    connection: &mut PgConnection,
    id: VersionId,
) -> Result<(), sqlx::Error> {
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

/// The versions that this program's code writes; `known` ones are taken over as they are.
pub(crate) async fn feedable(
    pool: &PgPool,
    models: &[ReadModel],
    known: &BTreeMap<VersionId, Arc<Version>>,
) -> Result<BTreeMap<VersionId, Arc<Version>>, sqlx::Error> {
    let rows: Vec<(String, i32, String, bool)> = sqlx::query_as(
        "select projection, version, fingerprint, state = 'building' from control.version",
    )
    .fetch_all(pool)
    .await?;
    let ours = |(name, number, fingerprint, building): (String, i32, String, bool)| {
        let model = name.parse().ok().filter(|model| models.contains(model))?;
        let id = VersionId { model, number };
        if model.template().fingerprint() != fingerprint {
            return None;
        }
        let version = match known.get(&id).filter(|version| version.building == building) {
            Some(version) => Arc::clone(version),
            None => Arc::new(Version { id, building, writer: model.writer(&id.schema()) }),
        };
        Some((id, version))
    };
    Ok(rows.into_iter().filter_map(ours).collect())
}
