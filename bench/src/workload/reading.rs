//! A log of orders, and a read side on it.

use super::system::Writing;
use crate::{
    args::Args,
    place::{OpenLog, Place},
    shop::Shop,
};
use anyhow::{Context, Result};
use events::{Partition, log::EventLog};
use projections::{
    Progress, Projector, ProjectorSettings, ReadModel, ReadModels,
    database::{self, PoolSettings, local::LocalPostgres},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, task::JoinSet};
use uuid::Uuid;

/// Concurrent orders while the log is being filled.
pub const FILLING: usize = 256;

/// The longest time to wait for a projector.
const PATIENCE: Duration = Duration::from_mins(30);

/// Places whole orders with two lines until the log has about `events` events. Returns the ids of
/// the orders.
///
/// # Errors
/// When an order fails.
pub async fn place_orders(
    shop: &Arc<Shop>,
    events: u64,
    appended: impl Fn() -> u64,
) -> Result<Vec<Uuid>> {
    let orders = Arc::new(Mutex::new(Vec::new()));
    let mut placing = JoinSet::new();
    let spawn = |placing: &mut JoinSet<Result<()>>| {
        let (shop, orders) = (Arc::clone(shop), Arc::clone(&orders));
        placing.spawn(async move {
            let order = shop.order(&shop.two_products()).await?;
            orders.lock().unwrap_or_else(PoisonError::into_inner).push(order);
            Ok(())
        });
    };
    (0..FILLING).for_each(|_| spawn(&mut placing));
    while let Some(placed) = placing.join_next().await {
        placed.context("a client panicked")??;
        if appended() < events {
            spawn(&mut placing);
        }
    }
    Ok(std::mem::take(&mut *orders.lock().unwrap_or_else(PoisonError::into_inner)))
}

/// A log with events of orders. Its write side is stopped, so the shop accepts no more orders.
pub struct Filled {
    /// The log.
    pub log: OpenLog,
    /// The shop whose orders are in the log.
    pub shop: Arc<Shop>,
    /// The orders.
    pub orders: Vec<Uuid>,
}

impl Filled {
    /// Fills a log with about `events` events through the real write side.
    ///
    /// # Errors
    /// When an order fails.
    pub async fn make(args: &Args, place: &Place, events: u64) -> Result<Self> {
        let writing = Writing::start(place).await?;
        let shop = Arc::new(writing.shop(args, &place.environment).await?);
        let orders = place_orders(&shop, events, || writing.appended().events).await?;
        Ok(Self { log: writing.stop().await, shop, orders })
    }
}

/// A database and the projector that fills it.
pub struct ReadSide {
    /// The queries of the read models.
    pub reads: ReadModels,
    log: Arc<dyn EventLog>,
    projector: Projector,
    /// The database server; removed when dropped.
    pub postgres: LocalPostgres,
}

impl ReadSide {
    /// Starts the projector on a new, empty database.
    ///
    /// # Errors
    /// When one of them does not start.
    pub async fn start(place: &Place, log: &Arc<dyn EventLog>) -> Result<Self> {
        let postgres = place.postgres().await?;
        let options = postgres.connect_options();
        let pool = database::connect(options.clone(), PoolSettings::default()).await?;
        projections::prepare(&pool, log.partitions()).await?;
        let progress = Progress::new(log.partitions());
        let projector = Projector::start(
            Arc::clone(log),
            options,
            Arc::clone(&place.environment),
            progress.clone(),
            ProjectorSettings {
                server: Some(watch::channel(postgres.process_id()).1),
                ..ProjectorSettings::default()
            },
        )
        .await?;
        let reads = ReadModels::new(pool, progress, Arc::clone(log));
        Ok(Self { reads, log: Arc::clone(log), projector, postgres })
    }

    /// Waits until all read models have applied the whole log.
    ///
    /// # Errors
    /// When a read model has stopped.
    pub async fn caught_up(&self) -> Result<()> {
        caught_up(&self.reads, self.log.partitions()).await
    }

    /// Lets the database finish its background work before a measurement. In production the tables
    /// would have been analysed and written to disk long before.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn vacuum(&self) -> Result<()> {
        for statement in ["vacuum analyze", "checkpoint"] {
            sqlx::raw_sql(statement).execute(self.reads.pool()).await?;
        }
        Ok(())
    }

    /// Stops the projector. Returns the database.
    pub async fn stop(self) -> LocalPostgres {
        self.projector.stop().await;
        self.reads.pool().close().await;
        self.postgres
    }
}

/// Waits until all read models have applied the whole log.
///
/// # Errors
/// When a read model has stopped.
pub async fn caught_up(reads: &ReadModels, partitions: u32) -> Result<()> {
    for model in ReadModel::ALL {
        for partition in (0..partitions).map(Partition) {
            reads.wait_for_end(model, partition, PATIENCE).await?;
        }
    }
    Ok(())
}
