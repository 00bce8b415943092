//! A process that uses the read models' database, to be killed: a runtime of its own behind a proxy of its own.

use crate::{
    faults::Fault,
    proxy::{Proxy, Struck},
};
use events::{environment::System, log::EventLog};
use projections::{
    Progress, Projector, ProjectorSettings, ReadModel,
    database::{self, PoolSettings},
    parked::{self, RetryError},
    rebuild::{self, RebuildError},
};
use sqlx::{PgPool, postgres::PgConnectOptions};
use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicU16},
    time::Duration,
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{mpsc, oneshot},
};
use tokio_util::sync::CancellationToken;

/// Where processes run.
#[derive(Clone)]
pub struct World {
    pub server: Arc<AtomicU16>,
    pub options: PgConnectOptions,
    pub log: Arc<dyn EventLog>,
    pub struck: mpsc::UnboundedSender<Struck>,
}

pub struct Process {
    pub id: u64,
    pub proxy: Proxy,
    /// Whether it feeds every read model, and looks for new versions.
    pub feeds_all: bool,
    runtime: Option<Runtime>,
    stop: CancellationToken,
}

impl Process {
    async fn new(world: &World, id: u64, faults: Vec<Fault>) -> (Self, PgConnectOptions) {
        let server = Arc::clone(&world.server);
        let proxy = Proxy::open(id, server, faults, world.struck.clone()).await;
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let options = world.options.clone().port(proxy.port());
        let stop = CancellationToken::new();
        (Self { id, proxy, feeds_all: false, runtime: Some(runtime), stop }, options)
    }

    fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (done, result) = oneshot::channel();
        self.runtime.as_ref().unwrap().spawn(async move {
            // Nobody may be left to hear of it.
            let _ = done.send(work.await);
        });
        result
    }

    /// With a projector, begun again for as long as it does not start.
    pub async fn projector(
        world: &World,
        id: u64,
        settings: ProjectorSettings,
        faults: Vec<Fault>,
    ) -> (Self, oneshot::Receiver<()>) {
        let (process, options) = Self::new(world, id, faults).await;
        let (log, stop) = (Arc::clone(&world.log), process.stop.clone());
        let ended = process.spawn(async move {
            let projector = loop {
                let progress = Progress::new(log.partitions());
                let (log, environment) = (Arc::clone(&log), Arc::new(System::new()));
                let (options, settings) = (options.clone(), settings.clone());
                match Projector::start(log, options, environment, progress, settings).await {
                    Ok(projector) => break projector,
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            };
            stop.cancelled().await;
            projector.stop().await;
        });
        (process, ended)
    }

    /// With an operator who has one wish.
    pub async fn operator(
        world: &World,
        id: u64,
        (wish, model): (Wish, ReadModel),
        faults: Vec<Fault>,
    ) -> (Self, oneshot::Receiver<Outcome>) {
        let (process, options) = Self::new(world, id, faults).await;
        let log = Arc::clone(&world.log);
        let done = process.spawn(async move {
            match database::connect(options, PoolSettings::default()).await {
                Ok(pool) => wish.carry_out(&pool, &log, model).await,
                Err(_) => Outcome::Failed,
            }
        });
        (process, done)
    }

    /// Asks it to end.
    pub fn stop(&self) {
        self.stop.cancel();
    }
}

impl Drop for Process {
    /// As by `kill -9`: what it has said has arrived or not, and it says no more.
    fn drop(&mut self) {
        self.proxy.kill();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn retry_all(pool: &PgPool, log: &Arc<dyn EventLog>) -> Outcome {
    let Ok(parked) = parked::list(pool, None, 1_000).await else { return Outcome::Failed };
    for stream in parked.iter().map(|parked| parked.stream).collect::<BTreeSet<_>>() {
        match parked::retry(pool, log, stream).await {
            Ok(_) | Err(RetryError::NotParked(_)) => {}
            Err(_) => return Outcome::Failed,
        }
    }
    Outcome::Done
}

/// What an operator may want of a read model.
#[derive(Clone, Copy, Debug)]
pub enum Wish {
    Rebuild,
    Cancel,
    Rollback,
    Drop,
    /// Every parked stream, of whatever read model.
    Retry,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Refused,
    /// Nobody knows.
    Failed,
}

impl Wish {
    async fn carry_out(self, pool: &PgPool, log: &Arc<dyn EventLog>, model: ReadModel) -> Outcome {
        let done = match self {
            Self::Rebuild => rebuild::request(pool, model).await.map(drop),
            Self::Cancel => rebuild::cancel(pool, model).await,
            Self::Rollback => rebuild::rollback(pool, model).await.map(drop),
            Self::Drop => rebuild::drop_old(pool, model).await.map(drop),
            Self::Retry => return retry_all(pool, log).await,
        };
        match done {
            Ok(()) => Outcome::Done,
            Err(RebuildError::Database(_)) => Outcome::Failed,
            Err(_) => Outcome::Refused,
        }
    }
}
