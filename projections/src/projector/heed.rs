//! Listens for changes of versions, made by this process or another, so that the projector checks
//! them at once. Without these notifications (behind a connection pooler, for example) the next
//! regular check finds the same changes.

use events::Environment;
use sqlx::{PgPool, postgres::PgListener};
use std::{convert::Infallible, error::Error, sync::Arc, time::Duration};
use tokio::sync::Notify;

/// The channel that `control.tell_versions` notifies.
const CHANNEL: &str = "orderlog_versions";

/// Pause after a fault.
const REST: Duration = Duration::from_secs(5);

/// Signals `told` on every change of a version, until the pool is closed.
pub(super) async fn changes(pool: PgPool, environment: Arc<dyn Environment>, told: Arc<Notify>) {
    loop {
        let Err(error) = listen(&pool, &told).await;
        if pool.is_closed() {
            return;
        }
        tracing::info!(
            error = &error as &dyn Error,
            "cannot listen for changes of versions; they are noticed at the next check"
        );
        environment.sleep(REST).await;
    }
}

async fn listen(pool: &PgPool, told: &Notify) -> Result<Infallible, sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    loop {
        // `try_recv` also returns after a reconnection, when notifications may have been lost.
        // Signal then, too.
        listener.try_recv().await?;
        told.notify_one();
    }
}
