//! Hears at once that a version was asked for or changed, by this process or another. It only shortens the wait for the next
//! look, which would find the same: where nothing is heard, as behind a pooler, nothing else is lost.

use events::Environment;
use sqlx::{PgPool, postgres::PgListener};
use std::{convert::Infallible, error::Error, sync::Arc, time::Duration};
use tokio::sync::Notify;

/// What `control.tell_versions` notifies.
const CHANNEL: &str = "orderlog_versions";

/// The rest after a fault.
const REST: Duration = Duration::from_secs(5);

/// Wakes who looks at the versions, until the pool is closed.
pub(super) async fn changes(pool: PgPool, environment: Arc<dyn Environment>, told: Arc<Notify>) {
    loop {
        let Err(error) = listen(&pool, &told).await;
        if pool.is_closed() {
            return;
        }
        tracing::info!(
            error = &error as &dyn Error,
            "changes of versions are not heard of at once"
        );
        environment.sleep(REST).await;
    }
}

async fn listen(pool: &PgPool, told: &Notify) -> Result<Infallible, sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    loop {
        // Without a notification it is another connection, and what was told in between is lost.
        listener.try_recv().await?;
        told.notify_one();
    }
}
