//! Switches from one version to another, in one transaction.

use crate::{
    ReadModel, database, parked,
    progress::rest,
    version::{self, VersionId},
};
use sqlx::{PgConnection, PgPool};
use std::time::Duration;
use tokio::time;

/// How long the serving version is frozen while the other one comes level.
const FROZEN: Duration = Duration::from_millis(200);

/// Pause between two checks of that.
const POLL: Duration = Duration::from_millis(2);

/// Lets `to` serve, if it comes level with the serving version within a moment. Returns `false` if
/// it does not, or if a lock is held by another session: then another attempt may succeed.
pub(crate) async fn attempt(pool: &PgPool, to: VersionId) -> Result<bool, sqlx::Error> {
    let pool = pool.clone();
    match database::detached(async move { switch(&pool, to).await }).await {
        Err(error) if in_the_way(&error) => Ok(false),
        done => done,
    }
}

/// A lock time-out or a deadlock. Both roll the transaction back.
fn in_the_way(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| code == "55P03" || code == "40P01")
}

/// Locking the checkpoints of the serving version freezes it. The other version only moves forward,
/// so once it is level it stays level until the views point to it.
async fn switch(pool: &PgPool, to: VersionId) -> Result<bool, sqlx::Error> {
    let mut tx = pool.begin().await?;
    // Queries queue behind a session that waits for a lock on a view. Give up soon and try again
    // instead.
    sqlx::raw_sql("set local lock_timeout = '250ms'").execute(&mut *tx).await?;
    version::lock(&mut tx).await?;
    let Some(from) = serving(&mut tx, to.model).await? else { return Ok(false) };
    if from == to {
        return Ok(true);
    }
    sqlx::query(
        "select 1 from control.checkpoint where projection = $1 and version = $2 order by \
         partition for update",
    )
    .bind(from.model.as_str())
    .bind(from.number)
    .execute(&mut *tx)
    .await?;
    if !comes_level(&mut tx, from, to).await? {
        return Ok(false);
    }
    if parked::keeps_back(&mut tx, from, to).await? {
        return Ok(false);
    }
    serve(&mut tx, from, to).await?;
    version::show(&mut tx, to).await?;
    tx.commit().await?;
    Ok(true)
}

pub(super) async fn serving(
    connection: &mut PgConnection,
    model: ReadModel,
) -> Result<Option<VersionId>, sqlx::Error> {
    let number: Option<i32> =
        sqlx::query_scalar("select version from control.version where projection = $1 and serving")
            .bind(model.as_str())
            .fetch_optional(connection)
            .await?;
    Ok(number.map(|number| VersionId { model, number }))
}

/// Whether `to` has applied everything that `from` has, in every partition, within [`FROZEN`].
async fn comes_level(
    connection: &mut PgConnection,
    from: VersionId,
    to: VersionId,
) -> Result<bool, sqlx::Error> {
    let deadline = time::Instant::now() + FROZEN;
    loop {
        let behind: bool = sqlx::query_scalar(
            "select exists (select from control.checkpoint f left join control.checkpoint t \
             on t.projection = f.projection and t.version = $3 and t.partition = f.partition \
             where f.projection = $1 and f.version = $2 \
             and (t.next_offset is null or t.next_offset < f.next_offset))",
        )
        .bind(from.model.as_str())
        .bind(from.number)
        .bind(to.number)
        .fetch_one(&mut *connection)
        .await?;
        if !behind {
            return Ok(true);
        }
        if time::Instant::now() >= deadline {
            return Ok(false);
        }
        rest(POLL).await;
    }
}

async fn serve(
    connection: &mut PgConnection,
    from: VersionId,
    to: VersionId,
) -> Result<(), sqlx::Error> {
    let model = to.model.as_str();
    sqlx::query(
        "update control.version set serving = false where projection = $1 and version = $2",
    )
    .bind(model)
    .bind(from.number)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "update control.version set serving = true, state = 'live', served_at = clock_timestamp() \
         where projection = $1 and version = $2",
    )
    .bind(model)
    .bind(to.number)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "update control.checkpoint set serving = (version = $3) where projection = $1 and \
         version in ($2, $3)",
    )
    .bind(model)
    .bind(from.number)
    .bind(to.number)
    .execute(connection)
    .await?;
    Ok(())
}
