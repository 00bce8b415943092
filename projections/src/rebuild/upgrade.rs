//! A program whose revision or tables are newer begins to build its own version at the start.
//!
//! This happens only upwards. Otherwise two programs with different revisions that run side by
//! side, as in a rolling deployment or after a rollback, would replace each other's version for
//! ever.

use crate::{
    ReadModel, database,
    golden::Why,
    projection::revision,
    version::{self, VersionId},
};
use sqlx::{PgConnection, PgPool};

/// Begins a rebuild of each of `models` that older code wrote, unless this program already builds
/// or feeds a version of it.
pub(crate) async fn begin(
    pool: &PgPool,
    models: &[ReadModel],
    partitions: u32,
) -> Result<(), sqlx::Error> {
    let (pool, models) = (pool.clone(), models.to_vec());
    database::detached(async move {
        let mut tx = pool.begin().await?;
        // Like the first versions: if a crash of the server lost this, nothing would do it again.
        sqlx::query("set local synchronous_commit to on").execute(&mut *tx).await?;
        version::lock(&mut tx).await?;
        for model in models {
            if !is_due(&mut tx, model).await? {
                continue;
            }
            abandon(&mut tx, model).await?;
            let number = version::next_number(&mut tx, model).await?;
            let id = VersionId { model, number };
            version::create_beside(&mut tx, id, partitions).await?;
            tracing::info!(
                version = %id,
                "an older program built the serving version, a rebuild begins"
            );
        }
        tx.commit().await
    })
    .await
}

async fn is_due(connection: &mut PgConnection, model: ReadModel) -> Result<bool, sqlx::Error> {
    let found: Vec<String> =
        sqlx::query_scalar("select fingerprint from control.version where projection = $1")
            .bind(model.as_str())
            .fetch_all(&mut *connection)
            .await?;
    let template = model.template();
    if found.is_empty() || found.contains(&template.fingerprint()) {
        return Ok(false);
    }
    let latest = found.iter().map(|it| revision(it)).max().unwrap_or_default();
    if latest > template.revision {
        let why = Why::Newer(latest).told(model);
        tracing::warn!(%model, why, "no rebuild begins");
        return Ok(false);
    }
    if latest < template.revision {
        return Ok(true);
    }
    // Different tables do not show which code is newer. If this code was in use before, it has been
    // rolled back to, and builds nothing.
    let was_here: bool = sqlx::query_scalar(
        "select exists (select from control.code where projection = $1 and fingerprint = $2)",
    )
    .bind(model.as_str())
    .bind(template.fingerprint())
    .fetch_one(connection)
    .await?;
    Ok(!was_here)
}

/// Drops the version that older code was building: this code cannot continue it, and only one
/// version is built at a time.
async fn abandon(connection: &mut PgConnection, model: ReadModel) -> Result<(), sqlx::Error> {
    match super::building(connection, model).await? {
        Some(id) => {
            tracing::warn!(
                version = %id,
                "a version that an older program was building is dropped"
            );
            version::drop_version(connection, id).await
        }
        None => Ok(()),
    }
}
