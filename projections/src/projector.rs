//! The projector of a process. It takes leases, decides which versions are read together, and lets
//! rebuilt versions serve.
//!
//! Versions that are close to each other share one reader and one transaction, for each group of
//! partitions. A version that is far behind (because it was not fed for a while) has a reader of
//! its own until it is close. A new version is first filled in bulk.

mod foreign;
mod heed;
mod plan;

use crate::{
    Planted, Progress, ReadModel,
    background::{self, Background},
    checkpoint::{self, Checkpoint},
    database::{self, PoolSettings},
    feeds::{FeedKey, Live, Running},
    golden::{self, Why},
    lease::{self, Share},
    parked,
    rebuild::{bulk::Bulk, indexes, upgrade, verify::Verify},
    version::{self, Feedable, PrepareError, Version, VersionId},
    worker::{Context, Feed, Reached, Shares, stopped_gauge},
};
use events::{Environment, Offset, Partition, log::EventLog};
use futures::{FutureExt, future::BoxFuture};
use sqlx::postgres::PgConnectOptions;
use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    io,
    sync::Arc,
    time::Duration,
};
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use uuid::Uuid;

/// The settings of a projector.
#[derive(Clone, Debug)]
pub struct ProjectorSettings {
    /// The read models to feed.
    pub models: Vec<ReadModel>,
    /// The number of groups of partitions. Each group is read and written by a task of its own.
    pub groups: u32,
    /// A transaction takes no more batches once it has this many events.
    pub max_events: usize,
    /// The same, for a version with a reader of its own.
    pub max_events_apart: usize,
    /// The number of partitions of new versions that are filled in bulk at the same time.
    pub bulk_tasks: u32,
    /// About how many bytes each of these tasks gathers in memory before it writes.
    pub bulk_bytes: usize,
    /// Pause between two checks of leases, versions and lag.
    pub tick: Duration,
    /// How long a lease lasts unless it is renewed. So long it takes another process to take over
    /// from a killed one.
    pub lease: Duration,
    /// A version shares the reader of the others while it is at most this many events behind.
    pub close: i64,
    /// Whether to rebuild, at the start, the read models that an older program built.
    pub rebuild_on_upgrade: bool,
    /// The process id of the database server, if the server runs on this machine and this process
    /// may lower its priority (same user, or root). Sessions of rebuilds then get a lower priority.
    /// It changes when the server is started again.
    pub server: Option<watch::Receiver<u32>>,
    /// A bug, for a test that must find it.
    pub planted: Planted,
}

impl Default for ProjectorSettings {
    fn default() -> Self {
        Self {
            models: ReadModel::ALL.to_vec(),
            groups: 4,
            max_events: 5_000,
            max_events_apart: 20_000,
            bulk_tasks: 3,
            bulk_bytes: 64 << 20,
            tick: Duration::from_millis(500),
            lease: Duration::from_secs(4),
            close: 2_000,
            rebuild_on_upgrade: true,
            server: None,
            planted: Planted::Nothing,
        }
    }
}

/// A version that shares a reader keeps it until it is this many times `close` events behind.
const SLACK: i64 = 10;

/// Why a projector did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database cannot be reached.
    #[error(transparent)]
    Connect(#[from] database::DatabaseError),
    /// The read models could not be prepared.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The threads for background work could not be started.
    #[error("the threads for rebuilds cannot be started")]
    Background(#[source] io::Error),
}

/// Feeds the read models from the log for as long as it lives. Dropping it ends all its tasks at
/// once, which is always safe.
pub struct Projector {
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl Projector {
    /// Prepares the read models and begins to feed them. `progress` tells the [`ReadModels`] of
    /// this process how far they are.
    ///
    /// [`ReadModels`]: crate::ReadModels
    ///
    /// # Errors
    /// When the database cannot be reached, or belongs to a log with another number of partitions.
    /// Later faults are retried.
    pub async fn start(
        log: Arc<dyn EventLog>,
        options: PgConnectOptions,
        environment: Arc<dyn Environment>,
        progress: Progress,
        settings: ProjectorSettings,
    ) -> Result<Self, StartError> {
        let pool = PoolSettings {
            application_name: "orderlog projector".to_owned(),
            // One for each group, one for each group's versions that read for themselves, and some
            // for leases and notifications.
            max_connections: settings.groups * 2 + 5,
            ..PoolSettings::default()
        };
        let pool = database::connect(session(options), pool).await?;
        version::prepare(&pool, log.partitions()).await?;
        if settings.rebuild_on_upgrade {
            let begun = upgrade::begin(&pool, &settings.models, log.partitions()).await;
            begun.map_err(PrepareError::from)?;
        }
        // Before any version is fed. A failure is retried at the first check of the versions.
        if let Err(error) = golden::known(&pool, settings.planted.build(), &settings.models).await {
            tracing::warn!(
                error = &error as &dyn Error,
                "the digest of the golden slice cannot be computed yet"
            );
        }
        let stop = CancellationToken::new();
        let groups = group(log.partitions(), settings.groups);
        let (holder, planted) = (environment.uuid(), settings.planted);
        let turns = Arc::new(Semaphore::new(settings.bulk_tasks.max(1) as usize));
        // For bulk tasks, for versions that catch up, and for two comparisons at the same time.
        // More comparisons wait for a session.
        let sessions = settings.bulk_tasks + settings.groups + 8;
        let background_pool = background::connect(&pool, sessions, settings.server.clone());
        let background = Background::new().map_err(StartError::Background)?;
        let background_log =
            background.enter(|| log.in_background()).unwrap_or_else(|| Arc::clone(&log));
        let context = Context { pool, log, environment, progress, planted, live: Live::default() };
        let coordinator = Coordinator {
            background_context: Arc::new(Context {
                pool: background_pool,
                log: background_log,
                ..context.clone()
            }),
            context: Arc::new(context),
            background,
            settings,
            holder,
            groups,
            versions: BTreeMap::new(),
            held: BTreeSet::new(),
            feeds: BTreeMap::new(),
            turns,
            done: Arc::default(),
            rebuilds: BTreeMap::new(),
            foreign: BTreeMap::new(),
        };
        #[expect(clippy::disallowed_methods, reason = "ended by the handle")]
        let task = tokio::spawn(coordinator.run(stop.clone()));
        Ok(Self { stop, task: AbortOnDropHandle::new(task) })
    }

    /// Finishes the open transactions, releases the leases and ends.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(error = &error as &dyn Error, "the projector ended with an error");
        }
    }

    /// Whether the projector has ended by itself, which is a bug.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }
}

/// The options of sessions that write rows.
///
/// A commit need not wait for the disk: if the server crashes, rows and checkpoints are lost
/// together and both are written again from the log. Statements must find their rows by key even
/// while the planner's statistics lag behind a table that grows quickly from nothing, so other
/// plans are disabled.
fn session(options: PgConnectOptions) -> PgConnectOptions {
    options.options([
        ("synchronous_commit", "off"),
        ("plan_cache_mode", "force_generic_plan"),
        ("enable_seqscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
        ("jit", "off"),
    ])
}

/// Deals the partitions out to the groups.
fn group(partitions: u32, groups: u32) -> Vec<Vec<Partition>> {
    let groups = groups.clamp(1, partitions.max(1));
    (0..groups)
        .map(|first| (first..partitions).step_by(groups as usize).map(Partition).collect())
        .collect()
}

struct Coordinator {
    context: Arc<Context>,
    /// The same, with the sessions and readers for background work.
    background_context: Arc<Context>,
    background: Background,
    settings: ProjectorSettings,
    holder: Uuid,
    groups: Vec<Vec<Partition>>,
    versions: BTreeMap<VersionId, Arc<Version>>,
    held: BTreeSet<Share>,
    feeds: BTreeMap<FeedKey, Running>,
    /// Limits how many partitions are filled in bulk at the same time.
    turns: Arc<Semaphore>,
    /// Signalled when a task has finished or a version has changed, so that the next check comes at
    /// once.
    done: Arc<Notify>,
    /// For each rebuild, when this process first saw it (on the monotonic clock) and how many
    /// events it had applied by then.
    rebuilds: BTreeMap<VersionId, (Duration, i64)>,
    /// The versions that this program does not feed, why, and whether they serve.
    foreign: BTreeMap<VersionId, (Why, bool)>,
}

impl Coordinator {
    async fn run(mut self, stop: CancellationToken) {
        let Context { pool, environment, .. } = &*self.context;
        let told = heed::changes(pool.clone(), Arc::clone(environment), Arc::clone(&self.done));
        #[expect(clippy::disallowed_methods, reason = "ended by the handle")]
        let _told = AbortOnDropHandle::new(tokio::spawn(told));
        while !stop.is_cancelled() {
            if let Err(error) = self.tick().await {
                tracing::warn!(
                    error = &error as &dyn Error,
                    "the projector cannot check its leases and versions, trying again"
                );
            }
            tokio::select! {
                () = self.context.environment.sleep(self.settings.tick) => {}
                () = self.done.notified() => {}
                () = stop.cancelled() => {}
            }
        }
        self.end(|_, _| false).await;
        for &(id, partition) in &self.held {
            self.context.progress.forget(id.model, partition);
        }
        if let Err(error) = lease::release(&self.context.pool, self.holder).await {
            tracing::info!(error = &error as &dyn Error, "leases not released, they will expire");
        }
        // The database may be stopped next, so every session is closed first.
        self.context.pool.close().await;
        self.background_context.pool.close().await;
    }

    async fn tick(&mut self) -> Result<(), sqlx::Error> {
        let pool = &self.context.pool;
        let (models, build) = (&self.settings.models, self.context.planted.build());
        let Feedable { versions, foreign } =
            version::feedable(pool, models, build, &self.versions).await?;
        self.versions = versions;
        self.tell_foreign(foreign);
        let pool = &self.context.pool;
        let partitions = || self.groups.iter().flatten();
        let wanted: Vec<Share> =
            self.versions.keys().flat_map(|id| partitions().map(|&at| (*id, at))).collect();
        let held = lease::acquire(pool, self.holder, &wanted, self.settings.lease).await?;
        let gained: Vec<Share> = held.difference(&self.held).copied().collect();
        if !gained.is_empty() {
            checkpoint::resume(pool, &gained).await?;
        }
        self.held = held;
        // Before the checkpoints are read, so that no checkpoint can be further back than this.
        let reached: Vec<_> =
            self.feeds.iter().map(|(key, running)| (*key, running.reached())).collect();
        let checkpoints = checkpoint::load(pool).await?;
        self.end_deceived(reached, &checkpoints).await;
        self.reconcile(&checkpoints).await;
        self.tell(&checkpoints);
        self.measure(&checkpoints);
        tell_parked(&checkpoints);
        self.switch(&checkpoints).await
    }

    /// Ends the feeds whose transactions the database has lost: a server that crashes forgets the
    /// last ones, because commits do not wait for the disk. Without this, a feed would not notice
    /// the loss until new events come.
    async fn end_deceived(
        &mut self,
        reached: Vec<(FeedKey, BTreeMap<Share, Offset>)>,
        checkpoints: &BTreeMap<Share, Checkpoint>,
    ) {
        let back = |(share, reached): (&Share, &Offset)| {
            checkpoints.get(share).is_some_and(|found| found.cursor.offset < *reached)
        };
        let lost = reached.into_iter().filter(|(_, reached)| reached.iter().any(back));
        let lost: BTreeSet<FeedKey> = lost.map(|(key, _)| key).collect();
        if !lost.is_empty() {
            tracing::warn!(
                feeds = lost.len(),
                "the database has lost its last transactions; the feeds start again"
            );
            self.end(|key, _| !lost.contains(key)).await;
        }
    }

    /// Makes the running tasks equal to the desired ones. Tasks that change end before new ones
    /// begin, so that no two tasks of this process feed the same partition of a version.
    async fn reconcile(&mut self, checkpoints: &BTreeMap<Share, Checkpoint>) {
        let desired = self.desired(checkpoints);
        self.end(|key, running| desired.get(key).is_some_and(|shares| running.feeds(shares))).await;
        for (key, shares) in desired {
            if self.feeds.contains_key(&key) {
                continue;
            }
            let running = self.begin(key, shares);
            self.feeds.insert(key, running);
        }
    }

    fn begin(&self, key: FeedKey, shares: Shares) -> Running {
        let (stop, reached) = (CancellationToken::new(), Reached::default());
        let feed = |context: &Arc<Context>, max_events| Feed {
            context: Arc::clone(context),
            shares: shares.clone(),
            max_events,
            reached: reached.clone(),
            stop: stop.clone(),
        };
        let (settings, done) = (&self.settings, || Arc::clone(&self.done));
        let version = |id| Arc::clone(&self.versions[&id]);
        let (in_background, task): (bool, BoxFuture<'static, ()>) = match key {
            FeedKey::Together(_) => (false, feed(&self.context, settings.max_events).run().boxed()),
            FeedKey::Apart(id, _) => {
                // A version that does not serve yet may take its time.
                let new = self.versions[&id].building;
                let context = if new { &self.background_context } else { &self.context };
                (new, feed(context, settings.max_events_apart).run().boxed())
            }
            FeedKey::Bulk(_, partition) => {
                let bulk = Bulk {
                    context: Arc::clone(&self.background_context),
                    versions: shares.values().flatten().cloned().collect(),
                    partition,
                    max_bytes: settings.bulk_bytes,
                    at_once: settings.bulk_tasks.max(1),
                    turns: Arc::clone(&self.turns),
                    reached: reached.clone(),
                    stop: stop.clone(),
                    done: done(),
                };
                (true, bulk.run().boxed())
            }
            FeedKey::Indexes(id) => {
                let pool = self.background_context.pool.clone();
                (true, indexes::complete(pool, version(id), stop.clone(), done()).boxed())
            }
            FeedKey::Verify(id) => {
                let (context, version) = (Arc::clone(&self.background_context), version(id));
                (true, Verify { context, version, stop: stop.clone(), done: done() }.run().boxed())
            }
        };
        let task = if in_background {
            self.background.spawn(task)
        } else {
            #[expect(clippy::disallowed_methods, reason = "ended by the handle")]
            tokio::spawn(task)
        };
        let task = AbortOnDropHandle::new(task);
        Running { shares, reached, stop, task }
    }

    /// Ends all tasks except those for which `keep` returns true.
    async fn end(&mut self, keep: impl Fn(&FeedKey, &Running) -> bool) {
        let (kept, ended) = std::mem::take(&mut self.feeds)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(key, running)| keep(key, running));
        self.feeds = kept;
        for running in ended.values() {
            running.stop.cancel();
        }
        for running in ended.into_values() {
            running.end().await;
        }
    }

    /// Callers that wait for a partition which another process feeds must read its checkpoint.
    fn tell(&self, checkpoints: &BTreeMap<Share, Checkpoint>) {
        for (share, checkpoint) in checkpoints {
            let (id, partition) = *share;
            if checkpoint.serving {
                if !self.held.contains(share) {
                    self.context.progress.forget(id.model, partition);
                }
                let stopped = checkpoint.stopped.is_some();
                stopped_gauge(id.model, partition).set(f64::from(u8::from(stopped)));
            }
        }
    }
}

/// Sets the gauges of the parked streams of the serving versions.
fn tell_parked(checkpoints: &BTreeMap<Share, Checkpoint>) {
    let mut parked: BTreeMap<ReadModel, i32> = BTreeMap::new();
    for ((id, _), checkpoint) in checkpoints.iter().filter(|(_, checkpoint)| checkpoint.serving) {
        *parked.entry(id.model).or_default() += checkpoint.parked;
    }
    for (model, parked) in parked {
        parked::gauge(model).set(parked);
    }
}
