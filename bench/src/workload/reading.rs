//! A log of orders, and what reads it.

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
use tokio::task::JoinSet;
use uuid::Uuid;

/// Orders under way while the log is filled.
pub const FILLING: usize = 256;

/// No run of a projector takes longer.
const PATIENCE: Duration = Duration::from_mins(30);

/// Places orders of two lines, whole ones, until about so many events are in the log; gives the
/// orders' ids.
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
        placed.context("a client died")??;
        if appended() < events {
            spawn(&mut placing);
        }
    }
    Ok(std::mem::take(&mut *orders.lock().unwrap_or_else(PoisonError::into_inner)))
}

/// A log with about so many events of orders; the shop on it takes no more.
pub struct Filled {
    /// The log.
    pub log: OpenLog,
    /// The shop whose orders are in it.
    pub shop: Arc<Shop>,
    /// The orders.
    pub orders: Vec<Uuid>,
}

impl Filled {
    /// Makes it, through the real write side.
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

/// A database, and the projector that feeds it.
pub struct ReadSide {
    /// To ask the read models.
    pub reads: ReadModels,
    log: Arc<dyn EventLog>,
    projector: Projector,
    /// The database itself; gone when dropped.
    pub postgres: LocalPostgres,
}

impl ReadSide {
    /// Starts both, on an empty database.
    ///
    /// # Errors
    /// When they do not start.
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
                server: Some(postgres.process_id()),
                ..ProjectorSettings::default()
            },
        )
        .await?;
        let reads = ReadModels::new(pool, progress, Arc::clone(log));
        Ok(Self { reads, log: Arc::clone(log), projector, postgres })
    }

    /// Waits until all read models have all of the log.
    ///
    /// # Errors
    /// When one has stopped.
    pub async fn caught_up(&self) -> Result<()> {
        caught_up(&self.reads, self.log.partitions()).await
    }

    /// Lets the database be done with what came before, so that nothing of it is measured: in a log of some age, tables have
    /// long been analysed and written to disk.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn settle(&self) -> Result<()> {
        for statement in ["vacuum analyze", "checkpoint"] {
            sqlx::raw_sql(statement).execute(self.reads.pool()).await?;
        }
        Ok(())
    }

    /// Ends the projector; gives the database.
    pub async fn stop(self) -> LocalPostgres {
        self.projector.stop().await;
        self.reads.pool().close().await;
        self.postgres
    }
}

/// Waits until all read models have all of the log.
///
/// # Errors
/// When one has stopped.
pub async fn caught_up(reads: &ReadModels, partitions: u32) -> Result<()> {
    for model in ReadModel::ALL {
        for partition in (0..partitions).map(Partition) {
            reads.wait_for_end(model, partition, PATIENCE).await?;
        }
    }
    Ok(())
}
