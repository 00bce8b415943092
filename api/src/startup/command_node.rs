//! One process at a time decides the commands of a log.
//!
//! Two would do no harm: each takes the partitions that the other one has, and only the newest claim in
//! the log counts. But neither would serve the shop for long. So a process that finds another one at
//! work is refused, unless it is told to take over. A row in the shared database says who is at work. It
//! is renewed all the time, so that it ends with its process.

use super::StartError;
use sqlx::PgPool;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// How long the row counts without being renewed.
const LEASE: Duration = Duration::from_secs(4);
/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(1);

/// This process as the one that decides the commands of a log.
#[derive(Clone)]
pub(super) struct CommandNode {
    pool: PgPool,
    log: String,
    holder: Uuid,
}

impl CommandNode {
    /// Takes the place of the command node of `log`. If another process has it, waits whether that
    /// process is gone, or takes over at once.
    ///
    /// # Errors
    /// [`StartError::CommandNode`] if the other process is at work, and the database's errors.
    pub async fn take(
        pool: PgPool,
        log: String,
        holder: Uuid,
        take_over: bool,
    ) -> Result<Self, StartError> {
        let node = Self { pool, log, holder };
        let deadline = Instant::now() + LEASE + RENEW;
        while !node.hold(take_over).await? {
            if Instant::now() >= deadline {
                return Err(StartError::CommandNode(node.log));
            }
            sleep(RENEW / 4).await;
        }
        Ok(node)
    }

    /// Renews the row, or takes it again once it is free: another process may have taken over, and be
    /// gone.
    pub async fn keep(self) {
        loop {
            sleep(RENEW).await;
            if let Err(error) = self.hold(false).await {
                tracing::debug!(error = &error as &dyn std::error::Error, "the row is not renewed");
            }
        }
    }

    /// Gives the row up, so that the next process need not wait.
    pub async fn release(self) {
        let release =
            sqlx::query("delete from control.command_node where log = $1 and holder = $2");
        // It ends by itself, too.
        let _ = release.bind(&self.log).bind(self.holder).execute(&self.pool).await;
    }

    /// Whether this process has the row now.
    async fn hold(&self, take_over: bool) -> Result<bool, sqlx::Error> {
        let held = sqlx::query(
            "insert into control.command_node as n (log, holder, until) \
             values ($1, $2, clock_timestamp() + $3 * interval '1 second') \
             on conflict (log) do update set holder = excluded.holder, until = excluded.until \
             where n.holder = excluded.holder or n.until < clock_timestamp() or $4",
        );
        let held = held.bind(&self.log).bind(self.holder).bind(LEASE.as_secs_f64()).bind(take_over);
        Ok(held.execute(&self.pool).await?.rows_affected() == 1)
    }
}
