//! The query side: a pool, the progress of the read models, and the log, which knows its own end.
//! The queries are in the modules of their read models.

mod looks;

use crate::{
    Progress, ReadModel,
    build::Build,
    checkpoint,
    database::{self, PoolSettings},
    golden,
    projection::unreadable,
    version::VersionId,
};
use events::{
    LogPosition, Partition, Position, StreamId,
    log::{Cursor, EventLog, ReadError},
};
use looks::Looks;
use sqlx::PgPool;
use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

/// SQLSTATE of a statement that took longer than `statement_timeout`.
const STATEMENT_TIMED_OUT: &str = "57014";

/// Queries on the read models.
#[derive(Clone)]
pub struct ReadModels {
    looks: Looks,
    pools: Pools,
    progress: Progress,
    log: Arc<dyn EventLog>,
}

/// Connections by purpose, so that many searches keep no order from being read, and neither keeps
/// the node from telling that it is ready.
#[derive(Clone)]
struct Pools {
    /// For reads of one thing and for lists.
    reads: PgPool,
    /// For searches and reports. Its size bounds how many of them the database works on at once.
    costly: PgPool,
    /// For questions of the node about itself.
    probes: PgPool,
}

/// How long a search or a report waits for one of the few connections that they share.
const COSTLY_WAIT: Duration = Duration::from_secs(1);

/// The longest statement of a report.
const COSTLY_STATEMENT: Duration = Duration::from_secs(10);

/// The longest question of the node about itself.
const PROBE: Duration = Duration::from_secs(2);

impl Pools {
    fn beside(reads: PgPool) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let costly = PoolSettings {
            application_name: "orderlog search and reports".to_owned(),
            max_connections: u32::try_from(cores / 2).unwrap_or(u32::MAX).max(2),
            acquire_timeout: COSTLY_WAIT,
            statement_timeout: Some(COSTLY_STATEMENT),
            ..PoolSettings::default()
        };
        let probes = PoolSettings {
            application_name: "orderlog readiness".to_owned(),
            max_connections: 2,
            acquire_timeout: PROBE,
            statement_timeout: Some(PROBE),
            ..PoolSettings::default()
        };
        Self {
            costly: database::beside(&reads, &costly),
            probes: database::beside(&reads, &probes),
            reads,
        }
    }
}

/// Why a query failed.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The database did not answer, or refused.
    #[error("the read models cannot be queried")]
    Database(#[from] sqlx::Error),
    /// A row does not have the expected content.
    #[error("a row of {table} is not valid: {problem}")]
    Row {
        /// The view.
        table: &'static str,
        /// What is wrong with the row.
        problem: String,
    },
    /// The stream is parked: the read model cannot apply one of its events, and does not show the
    /// stream without it.
    #[error("{stream} is parked in the read model {model}")]
    Parked {
        /// The read model.
        model: ReadModel,
        /// The stream.
        stream: StreamId,
    },
}

impl QueryError {
    /// Whether the query found no free connection in time or took too long, so that it may succeed
    /// once there is less to do.
    pub fn is_busy(&self) -> bool {
        match self {
            Self::Database(sqlx::Error::PoolTimedOut) => true,
            Self::Database(sqlx::Error::Database(error)) => {
                error.code().is_some_and(|code| code == STATEMENT_TIMED_OUT)
            }
            Self::Database(_) | Self::Row { .. } | Self::Parked { .. } => false,
        }
    }

    /// Whether the rows do not have the expected columns or types, as in a version that another
    /// build made.
    pub fn is_of_shape(&self) -> bool {
        match self {
            // Class 42: a missing column, table or function.
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

/// The read model did not get far enough in time.
#[derive(Debug, thiserror::Error)]
pub enum Behind {
    /// The read model is still behind.
    #[error("the read model {0} is behind the position asked for")]
    Late(ReadModel),
    /// A partition of the read model has stopped, and needs an operator to go on.
    #[error("the read model {model} has stopped in partition {partition}")]
    Stopped {
        /// The read model.
        model: ReadModel,
        /// The partition.
        partition: Partition,
    },
    /// The progress of the read model could not be read.
    #[error("the progress of the read models cannot be read")]
    Database(#[from] sqlx::Error),
    /// The end of the log could not be read.
    #[error("the end of the log cannot be read")]
    Log(#[from] ReadError),
}

/// A serving read model of which some partitions have stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoppedModel {
    /// The read model.
    pub model: ReadModel,
    /// The stopped partitions, in order.
    pub partitions: Vec<Partition>,
    /// Why the first of them stopped.
    pub reason: String,
}

/// A serving read model that this program does not feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaleModel {
    /// The read model.
    pub model: ReadModel,
    /// The version that serves.
    pub version: u32,
    /// Why this program does not feed it.
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
    /// Makes a page of items that were read with a limit of `limit + 1`.
    pub(crate) fn of(mut items: Vec<T>, limit: u32, cursor: impl FnOnce(&T) -> C) -> Self {
        let limit = limit as usize;
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(cursor);
        Self { items, next }
    }
}

impl ReadModels {
    /// `progress` is shared with the projector of this process; pass [`Progress::new`] if it has
    /// none.
    pub fn new(pool: PgPool, progress: Progress, log: Arc<dyn EventLog>) -> Self {
        let (looks, pools) = (Looks::new(log.partitions()), Pools::beside(pool));
        Self { looks, pools, progress, log }
    }

    /// The last event applied in each partition. An answer of `model` that is asked for after this
    /// call reflects at least these events.
    ///
    /// # Errors
    /// When no projector runs in this process and the database does not answer.
    pub async fn position(&self, model: ReadModel) -> Result<LogPosition, QueryError> {
        let seen = self.progress.seen(&self.pools.reads, model).await?;
        let of = |(partition, seen): (Partition, crate::progress::Seen)| {
            seen.last.map(|offset| Position { partition, offset })
        };
        Ok(seen.into_iter().filter_map(of).collect())
    }

    /// Whether `model` may have parked streams.
    pub(crate) async fn may_have_parked(&self, model: ReadModel) -> Result<bool, QueryError> {
        Ok(self.progress.seen(&self.pools.reads, model).await?.values().any(|seen| seen.parked))
    }

    /// Where the serving version of `model` continues to read in `partition`. Its rows include
    /// everything before this position.
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

    /// The serving read models of which some partitions have stopped, sorted by name.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn stopped(&self) -> Result<Vec<StoppedModel>, QueryError> {
        let checkpoints =
            self.ask_probe(|pool| async move { Ok(checkpoint::load(&pool).await?) }).await?;
        let mut stopped: BTreeMap<&'static str, StoppedModel> = BTreeMap::new();
        for ((id, partition), checkpoint) in checkpoints {
            let Some(reason) = checkpoint.stopped.filter(|_| checkpoint.serving) else { continue };
            let (model, partitions) = (id.model, Vec::new());
            let found = StoppedModel { model, partitions, reason };
            stopped.entry(model.as_str()).or_insert(found).partitions.push(partition);
        }
        Ok(stopped.into_values().collect())
    }

    /// The serving read models that this program does not feed because another build made them.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn stale(&self) -> Result<Vec<StaleModel>, QueryError> {
        let standings = self
            .ask_probe(|pool| async move { Ok(golden::noted(&pool, Build::Ours).await?) })
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

    /// Waits until `model` has applied every event that `token` names, for at most `within`.
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
        self.progress.wait(&self.pools.reads, model, targets.collect(), within).await
    }

    /// Waits until `model` has applied everything that was acknowledged in `partition` at the time
    /// of this call, for at most `within`. After that, a missing row means that the resource does
    /// not exist.
    ///
    /// # Errors
    /// [`Behind`] when it has not by then, or when the end of the log cannot be read.
    pub async fn wait_for_end(
        &self,
        model: ReadModel,
        partition: Partition,
        within: Duration,
    ) -> Result<(), Behind> {
        let end = self.looks.end_of(&self.log, partition).await?;
        let target = vec![(partition, Target::Before(end))];
        self.progress.wait(&self.pools.reads, model, target, within).await
    }

    /// The number of partitions of the log.
    pub fn partitions(&self) -> u32 {
        self.log.partitions()
    }

    /// The pool, for the administration of read models.
    pub fn pool(&self) -> &PgPool {
        &self.pools.reads
    }

    /// Runs a query in a task of its own. An HTTP handler is dropped whenever its client
    /// disconnects, and a connection must not return to the pool in the middle of a statement.
    pub(crate) async fn ask<T, F>(&self, query: impl FnOnce(PgPool) -> F) -> Result<T, QueryError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, QueryError>> + Send + 'static,
    {
        database::detached(query(self.pools.reads.clone())).await
    }

    /// As [`ask`](Self::ask), for a query that is costly by nature: a search or a report.
    pub(crate) async fn ask_costly<T, F>(
        &self,
        query: impl FnOnce(PgPool) -> F,
    ) -> Result<T, QueryError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, QueryError>> + Send + 'static,
    {
        database::detached(query(self.pools.costly.clone())).await
    }

    /// As [`ask`](Self::ask), for a question of the node about itself.
    pub(crate) async fn ask_probe<T, F>(
        &self,
        query: impl FnOnce(PgPool) -> F,
    ) -> Result<T, QueryError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, QueryError>> + Send + 'static,
    {
        database::detached(query(self.pools.probes.clone())).await
    }
}

pub(crate) use crate::progress::Target;
