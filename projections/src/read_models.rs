//! The query side: a pool, how far the read models are, and the log to ask where it ends. The queries themselves stand with
//! their read model.

use crate::{
    Planted, Progress, ReadModel, checkpoint, database, golden, projection::unreadable,
    version::VersionId,
};
use events::{
    LogPosition, Partition, Position, StreamId,
    log::{Cursor, EventLog, ReadError},
};
use sqlx::PgPool;
use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

/// The read models, to be asked.
#[derive(Clone)]
pub struct ReadModels {
    pool: PgPool,
    progress: Progress,
    log: Arc<dyn EventLog>,
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The database did not answer, or refused.
    #[error("the read models cannot be queried")]
    Database(#[from] sqlx::Error),
    /// A row does not have the shape it must have.
    #[error("a row of {table} does not read: {problem}")]
    Row {
        /// Which view.
        table: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The read model cannot apply an event of this stream, and does not show it as if it had.
    #[error("{model} keeps {stream} back")]
    Parked {
        /// Which read model.
        model: ReadModel,
        /// Which stream.
        stream: StreamId,
    },
}

impl QueryError {
    /// Whether the rows are not of the shape that was asked for: a version of other code may have such.
    pub fn is_of_shape(&self) -> bool {
        match self {
            // Class 42: no such column, table or function.
            Self::Database(sqlx::Error::Database(error)) => {
                error.code().is_some_and(|code| code.starts_with("42"))
            }
            Self::Database(error) => matches!(
                error,
                sqlx::Error::ColumnNotFound(_)
                    | sqlx::Error::ColumnDecode { .. }
                    | sqlx::Error::ColumnIndexOutOfBounds { .. }
            ),
            Self::Row { .. } => true,
            Self::Parked { .. } => false,
        }
    }
}

/// The read model did not get there in time.
#[derive(Debug, thiserror::Error)]
pub enum Behind {
    /// It is still behind.
    #[error("the read model {0} is behind the position asked for")]
    Late(ReadModel),
    /// A partition of it has stopped and will not get there without help.
    #[error("the read model {model} has stopped in partition {partition}")]
    Stopped {
        /// Which one.
        model: ReadModel,
        /// Where.
        partition: Partition,
    },
    /// How far it is cannot be asked.
    #[error("the progress of the read models cannot be read")]
    Database(#[from] sqlx::Error),
    /// Where the log ends cannot be asked.
    #[error("the end of the log cannot be read")]
    Log(#[from] ReadError),
}

/// A serving read model that has stopped somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoppedModel {
    /// Which one.
    pub model: ReadModel,
    /// Where, in order.
    pub partitions: Vec<Partition>,
    /// Why, in the first of them.
    pub reason: String,
}

/// A serving read model that this program does not feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaleModel {
    /// Which one.
    pub model: ReadModel,
    /// Its version that serves.
    pub version: u32,
    /// Why not.
    pub reason: String,
    /// Whether a version that this program feeds is being built.
    pub rebuilding: bool,
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T, C> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins; `None` on the last one.
    pub next: Option<C>,
}

impl<T, C> Page<T, C> {
    /// Of rows read with a limit of one more than `limit`.
    pub(crate) fn of(mut items: Vec<T>, limit: u32, cursor: impl FnOnce(&T) -> C) -> Self {
        let limit = limit as usize;
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(cursor);
        Self { items, next }
    }
}

impl ReadModels {
    /// Asks through `pool`. `progress` is shared with the projector of this process, if it has one
    /// ([`Progress::new`] otherwise).
    pub fn new(pool: PgPool, progress: Progress, log: Arc<dyn EventLog>) -> Self {
        Self { pool, progress, log }
    }

    /// What an answer of `model` reflects at least, if it is asked for after this call: the last event applied in each
    /// partition.
    ///
    /// # Errors
    /// When no projector runs here and the database does not answer.
    pub async fn position(&self, model: ReadModel) -> Result<LogPosition, QueryError> {
        let seen = self.progress.seen(&self.pool, model).await?;
        let of = |(partition, seen): (Partition, crate::progress::Seen)| {
            seen.last.map(|offset| Position { partition, offset })
        };
        Ok(seen.into_iter().filter_map(of).collect())
    }

    /// Whether `model` may keep streams back.
    pub(crate) async fn may_have_parked(&self, model: ReadModel) -> Result<bool, QueryError> {
        Ok(self.progress.seen(&self.pool, model).await?.values().any(|seen| seen.parked))
    }

    /// Where the serving version of `model` reads on in `partition`: everything before it is in its rows.
    ///
    /// # Errors
    /// When the database does not answer, or does not know the partition.
    pub async fn cursor(
        &self,
        model: ReadModel,
        partition: Partition,
    ) -> Result<Cursor, QueryError> {
        let checkpoints =
            self.ask(|pool| async move { Ok(checkpoint::load(&pool).await?) }).await?;
        let serving = checkpoints
            .into_iter()
            .find(|((id, at), it)| id.model == model && *at == partition && it.serving);
        let missing = || unreadable("checkpoint", format!("none of {model} in {partition} serves"));
        serving.map(|(_, checkpoint)| checkpoint.cursor).ok_or_else(missing)
    }

    /// The serving read models that have stopped somewhere, by name.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn stopped(&self) -> Result<Vec<StoppedModel>, QueryError> {
        let checkpoints =
            self.ask(|pool| async move { Ok(checkpoint::load(&pool).await?) }).await?;
        let mut stopped: BTreeMap<&'static str, StoppedModel> = BTreeMap::new();
        for ((id, partition), checkpoint) in checkpoints {
            let Some(reason) = checkpoint.stopped.filter(|_| checkpoint.serving) else { continue };
            let (model, partitions) = (id.model, Vec::new());
            let found = StoppedModel { model, partitions, reason };
            stopped.entry(model.as_str()).or_insert(found).partitions.push(partition);
        }
        Ok(stopped.into_values().collect())
    }

    /// The serving read models that this program does not feed, since other code built them.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn stale(&self) -> Result<Vec<StaleModel>, QueryError> {
        let standings = self
            .ask(|pool| async move { Ok(golden::noted(&pool, Planted::Nothing).await?) })
            .await?;
        let stale = |(id, standing): (&VersionId, &golden::Standing)| {
            let reason = standing.why.filter(|_| standing.serving)?.told(id.model);
            let ours = |(other, it): (&VersionId, &golden::Standing)| {
                other.model == id.model && it.building && it.why.is_none()
            };
            let rebuilding = standings.iter().any(ours);
            let (model, version) = (id.model, id.number.unsigned_abs());
            Some(StaleModel { model, version, reason, rebuilding })
        };
        Ok(standings.iter().filter_map(stale).collect())
    }

    /// Waits until `model` has applied every event that `token` names, at most `within`.
    ///
    /// # Errors
    /// [`Behind`] when it has not by then, or never will.
    pub async fn wait_for(
        &self,
        model: ReadModel,
        token: &LogPosition,
        within: Duration,
    ) -> Result<(), Behind> {
        let targets = token.iter().map(|at| (at.partition, Target::Event(at.offset)));
        self.progress.wait(&self.pool, model, targets.collect(), within).await
    }

    /// Waits until `model` has seen all that was acknowledged in `partition` by now, at most `within`: then what it does not
    /// show is not there.
    ///
    /// # Errors
    /// [`Behind`] when it has not by then, or the log does not tell where it ends.
    pub async fn wait_for_end(
        &self,
        model: ReadModel,
        partition: Partition,
        within: Duration,
    ) -> Result<(), Behind> {
        let end = self.log.acknowledged(partition).await?;
        self.progress.wait(&self.pool, model, vec![(partition, Target::Before(end))], within).await
    }

    /// The pool, for the administration of read models.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Runs a query in a task of its own: an HTTP handler is dropped whenever its client goes away, and a connection
    /// should not come back to the pool in the middle of a statement.
    pub(crate) async fn ask<T, F>(&self, query: impl FnOnce(PgPool) -> F) -> Result<T, QueryError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, QueryError>> + Send + 'static,
    {
        database::detached(query(self.pool.clone())).await
    }
}

pub(crate) use crate::progress::Target;
