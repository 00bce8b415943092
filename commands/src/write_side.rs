//! Starts and stops the write side.

use crate::{
    ShopRules,
    dispatch::{Board, Dispatcher, Outside, Payments},
    router::Router,
    shard::{LogClock, Shard, ShardState, ShardStatus, SnapshotStore, mailboxes},
};
use events::{Environment, Partition, log::EventLog};
use std::{sync::Arc, time::Duration};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

/// The settings of the write side that an operator may change.
#[derive(Clone, Debug)]
pub struct WriteSettings {
    /// The id of this process in its claims; new at each start.
    pub node: Uuid,
    /// How long after a partition opens its orders do not expire.
    pub expiry_grace: Duration,
    /// The longest time that an order may stay pending, whatever the clocks say.
    pub order_deadline: Duration,
    /// The capacity of each of a shard's mailboxes, in messages.
    pub mailbox: usize,
    /// Where shards save snapshots of their partitions, so that the next start need not read the
    /// whole log; `None` to save none.
    pub snapshots: Option<Arc<dyn SnapshotStore>>,
    /// The rules of the shop.
    pub rules: ShopRules,
}

impl WriteSettings {
    /// The default settings, for the process `node` of a shop with these rules.
    pub fn new(node: Uuid, rules: ShopRules) -> Self {
        Self {
            node,
            expiry_grace: Duration::from_mins(1),
            order_deadline: Duration::from_mins(15),
            mailbox: 8192,
            snapshots: None,
            rules,
        }
    }
}

/// How long [`WriteSide::stop`] waits for letters that are being sent. A letter that is cut off
/// after it went out goes out again.
const LETTERS_END: Duration = Duration::from_secs(5);

/// The running write side: one shard for each partition, and the dispatchers.
pub struct WriteSide {
    /// Gives access to the shards.
    pub router: Router,
    /// Receives the gateway's notices.
    pub payments: Payments,
    board: Arc<Board>,
    environment: Arc<dyn Environment>,
    stop: watch::Sender<bool>,
    stop_mail: watch::Sender<bool>,
    /// Closed when the dispatcher of letters has ended.
    mail_ended: mpsc::Receiver<()>,
    /// Receives a message whenever a task ends; closed when the last one has ended.
    ended: mpsc::Receiver<()>,
}

/// Owned by a task as long as it lives; reports its end, even after a panic.
struct Alive(mpsc::Sender<()>);

impl Drop for Alive {
    fn drop(&mut self) {
        // The channel has room for one message from each task.
        let _ = self.0.try_send(());
    }
}

impl WriteSide {
    /// Starts the dispatchers and the shards of all partitions. The shards open their partitions in
    /// the background.
    pub fn start(
        log: &Arc<dyn EventLog>,
        environment: &Arc<dyn Environment>,
        outside: Outside,
        settings: &WriteSettings,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (stop_mail, mail_stopped) = watch::channel(false);
        let (running, ended) = mpsc::channel(log.partitions() as usize + 2);
        let board = Arc::new(Board::new(environment));
        let clock = Arc::new(LogClock::default());
        let mut handles = Vec::new();
        for partition in (0..log.partitions()).map(Partition) {
            let (handle, inbox) = mailboxes(partition, settings.mailbox);
            handles.push(handle);
            let shard = Shard {
                partition,
                node: settings.node,
                grace: settings.expiry_grace,
                order_deadline: settings.order_deadline,
                log: Arc::clone(log),
                environment: Arc::clone(environment),
                clock: Arc::clone(&clock),
                board: Arc::clone(&board),
                snapshots: settings.snapshots.clone(),
                inbox,
                stop: stopped.clone(),
            };
            let alive = Alive(running.clone());
            environment.spawn(Box::pin(async move {
                shard.run().await;
                drop(alive);
            }));
        }
        let router = Router::new(Arc::clone(environment), clock, handles);
        let stops = [mail_stopped, stopped];
        let [mail, paying, effects] =
            Dispatcher::of(&board, router.clone(), outside, settings.rules, environment, stops);
        let payments = paying.payments();
        for dispatcher in [paying, effects] {
            let alive = Alive(running.clone());
            environment.spawn(Box::pin(async move {
                dispatcher.run().await;
                drop(alive);
            }));
        }
        drop(running);
        let (writing, mail_ended) = mpsc::channel(1);
        let alive = Alive(writing);
        environment.spawn(Box::pin(async move {
            mail.run_to_end().await;
            drop(alive);
        }));
        let environment = Arc::clone(environment);
        Self { router, payments, board, environment, stop, stop_mail, mail_ended, ended }
    }

    /// Waits until no partition is being opened any more.
    pub async fn ready(&self) -> Vec<ShardStatus> {
        loop {
            let status = self.router.status();
            if status.iter().all(|shard| shard.state != ShardState::Opening) {
                return status;
            }
            self.environment.sleep(Duration::from_millis(5)).await;
        }
    }

    /// The number of streams that owe an effect now.
    pub fn owing(&self) -> usize {
        self.board.len()
    }

    /// Resolves if a task ends although nobody stopped it.
    pub async fn died(&mut self) {
        // Every task holds a sender until it ends.
        tokio::select! {
            biased;
            _ = self.ended.recv() => {}
            _ = self.mail_ended.recv() => {}
        }
    }

    /// Finishes the decisions in progress and stops; no batch is left half written. Effects that
    /// are still owed are owed again at the next start.
    pub async fn stop(mut self) {
        // Letters first, while the shards can still record that a letter went out.
        let _ = self.stop_mail.send(true);
        tokio::select! {
            biased;
            _ = self.mail_ended.recv() => {}
            () = self.environment.sleep(LETTERS_END) => {}
        }
        // Every shard holds a receiver as long as it runs.
        let _ = self.stop.send(true);
        while self.ended.recv().await.is_some() {}
    }
}
