//! Starts and stops the write side.

use crate::{
    dispatch::{Board, Dispatcher, Outside, Payments},
    router::Router,
    shard::{Shard, ShardState, ShardStatus, SnapshotStore, mailboxes},
};
use events::{Environment, Partition, log::EventLog};
use std::{sync::Arc, time::Duration};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

/// What an operator may set of the write side.
#[derive(Clone, Debug)]
pub struct WriteSettings {
    /// Names this process in its claims; new at each start.
    pub node: Uuid,
    /// How long after its opening a partition expires nothing.
    pub expiry_grace: Duration,
    /// Messages that may wait in each of a shard's mailboxes.
    pub mailbox: usize,
    /// Where partitions are saved, so that the next start need not read their whole log; `None` for nowhere.
    pub snapshots: Option<Arc<dyn SnapshotStore>>,
}

impl WriteSettings {
    /// The defaults, for this process.
    pub fn new(node: Uuid) -> Self {
        Self { node, expiry_grace: Duration::from_mins(1), mailbox: 8192, snapshots: None }
    }
}

/// How long a stop waits for letters under way: one that is cut off after it went out goes out again.
const LETTERS_END: Duration = Duration::from_secs(5);

/// The running write side: a shard a partition, and the dispatcher.
pub struct WriteSide {
    /// The way to the shards.
    pub router: Router,
    /// The way for what the gateway tells of itself.
    pub payments: Payments,
    board: Arc<Board>,
    environment: Arc<dyn Environment>,
    stop: watch::Sender<bool>,
    stop_mail: watch::Sender<bool>,
    /// Closed when no letter is under way any more.
    mail_ended: mpsc::Receiver<()>,
    /// Hears of each task that ends; closed when the last one has.
    ended: mpsc::Receiver<()>,
}

/// Held by a task as long as it lives; tells of its end, however it comes.
struct Alive(mpsc::Sender<()>);

impl Drop for Alive {
    fn drop(&mut self) {
        // The channel has room for one message a task.
        let _ = self.0.try_send(());
    }
}

impl WriteSide {
    /// Starts the shards of all partitions, which open in the background, and the dispatcher.
    pub fn start(
        log: &Arc<dyn EventLog>,
        environment: &Arc<dyn Environment>,
        outside: Outside,
        settings: &WriteSettings,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (stop_mail, mail_stopped) = watch::channel(false);
        let (running, ended) = mpsc::channel(log.partitions() as usize + 1);
        let board = Arc::new(Board::new(environment));
        let mut handles = Vec::new();
        for partition in (0..log.partitions()).map(Partition) {
            let (handle, inbox) = mailboxes(partition, settings.mailbox);
            handles.push(handle);
            let shard = Shard {
                partition,
                node: settings.node,
                grace: settings.expiry_grace,
                log: Arc::clone(log),
                environment: Arc::clone(environment),
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
        let router = Router::new(Arc::clone(environment), handles);
        let stops = [mail_stopped, stopped];
        let [mail, effects] = Dispatcher::of(&board, router.clone(), outside, environment, stops);
        let payments = effects.payments();
        let alive = Alive(running);
        environment.spawn(Box::pin(async move {
            effects.run().await;
            drop(alive);
        }));
        let (writing, mail_ended) = mpsc::channel(1);
        let alive = Alive(writing);
        environment.spawn(Box::pin(async move {
            mail.run_to_end().await;
            drop(alive);
        }));
        let environment = Arc::clone(environment);
        Self { router, payments, board, environment, stop, stop_mail, mail_ended, ended }
    }

    /// Waits until no partition is still being opened.
    pub async fn ready(&self) -> Vec<ShardStatus> {
        loop {
            let status = self.router.status();
            if status.iter().all(|shard| shard.state != ShardState::Opening) {
                return status;
            }
            self.environment.sleep(Duration::from_millis(5)).await;
        }
    }

    /// Streams that owe something now.
    pub fn owing(&self) -> usize {
        self.board.len()
    }

    /// Resolves when a task has ended by itself, which none should.
    pub async fn died(&mut self) {
        // Every task has a sender until it ends.
        tokio::select! {
            biased;
            _ = self.ended.recv() => {}
            _ = self.mail_ended.recv() => {}
        }
    }

    /// Finishes what is being decided, and ends: no batch is left open. What is still owed is owed again at the next start.
    pub async fn stop(mut self) {
        // While the shards can still record what went out.
        let _ = self.stop_mail.send(true);
        tokio::select! {
            biased;
            _ = self.mail_ended.recv() => {}
            () = self.environment.sleep(LETTERS_END) => {}
        }
        // Every shard listens as long as it runs.
        let _ = self.stop.send(true);
        while self.ended.recv().await.is_some() {}
    }
}
