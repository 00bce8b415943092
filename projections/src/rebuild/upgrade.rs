//! A program with another revision, or other tables, begins to build its own version by itself.
//!
//! Only ever upwards: two programs of different revisions that run beside each other, as in a rolling deployment, or one that
//! was rolled back, would otherwise take the read model from each other for ever.

use crate::{
    ReadModel, database,
    golden::Why,
    projection::revision,
    version::{self, VersionId},
};
use sqlx::{PgConnection, PgPool};

/// Begins a rebuild of each of `models` that older code wrote, if this program's code builds or feeds none of its versions.
pub(crate) async fn begin(
    pool: &PgPool,
    models: &[ReadModel],
    partitions: u32,
) -> Result<(), sqlx::Error> {
    let (pool, models) = (pool.clone(), models.to_vec());
    database::detached(async move {
        let mut tx = pool.begin().await?;
        // As for first versions: nobody would do it again.
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
            tracing::info!(version = %id, "an older program built what serves, so it is built anew");
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
        tracing::warn!(%model, why, "not built anew");
        return Ok(false);
    }
    if latest < template.revision {
        return Ok(true);
    }
    // Tables tell nothing of which is newer; but code that was here before comes back from being rolled forth.
    let was_here: bool = sqlx::query_scalar(
        "select exists (select from control.code where projection = $1 and fingerprint = $2)",
    )
    .bind(model.as_str())
    .bind(template.fingerprint())
    .fetch_one(connection)
    .await?;
    Ok(!was_here)
}

/// Drops what older code was building: this code cannot go on with it, and one is built at a time.
async fn abandon(connection: &mut PgConnection, model: ReadModel) -> Result<(), sqlx::Error> {
    match super::building(connection, model).await? {
        Some(id) => {
            tracing::warn!(version = %id, "an older program was building it, and it is dropped");
            version::drop_version(connection, id).await
        }
        None => Ok(()),
    }
}
