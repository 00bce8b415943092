//! The one writer of a partition: a single-threaded state machine with two bounded mailboxes.
//!
//! A round: take what waits, the program's own commands first; look each command id up; decide; apply to an overlay at once,
//! so that the next command sees it; append all events as one batch; on OK merge the overlay and answer everybody, else drop
//! the overlay whole and open the partition anew. Answers that append nothing rest on the shard still being the owner: they
//! are given at once only within [`LEASE`] of an OK commit, else behind a beat.

mod batch;
mod dedupe;
mod memory;
mod recovery;
mod run;
mod serving;
mod snapshot;

use crate::request::{CommandError, Outcome, Request, Snapshot};
use events::{Partition, StreamId};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

pub(crate) use run::Shard;
pub use snapshot::{PartitionSnapshot, SnapshotError, SnapshotFiles, SnapshotStore};

/// How long after the begin of an OK commit an answer that appends nothing may rest on it. Only across a takeover can such an
/// answer be stale, and then by no more than this.
pub const LEASE: Duration = Duration::from_secs(2);

/// The most messages taken in one round.
const MAX_ROUND: usize = 1024;

/// How far a partition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardState {
    /// Being opened, or opened again after trouble.
    Opening,
    /// Serving.
    Open,
    /// Another process has claimed it.
    Foreign {
        /// That process.
        node: Uuid,
    },
    /// What the log holds cannot be taken in; trying again does not help.
    Failed,
    /// The program is ending.
    Stopped,
}

/// A partition as its shard sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardStatus {
    /// The partition.
    pub partition: Partition,
    /// How far it is.
    pub state: ShardState,
    /// The term of its writer; 0 before the first opening.
    pub term: u64,
}

/// A shard's status, shared with whoever asks.
#[derive(Clone)]
pub(crate) struct StatusCell(Arc<Mutex<ShardStatus>>);

impl StatusCell {
    fn new(partition: Partition) -> Self {
        Self(Arc::new(Mutex::new(ShardStatus { partition, state: ShardState::Opening, term: 0 })))
    }

    fn set(&self, state: ShardState, term: u64) {
        let mut status = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (status.state, status.term) = (state, term);
    }

    pub(crate) fn get(&self) -> ShardStatus {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) type Reply<T> = oneshot::Sender<T>;

/// What a mailbox takes.
pub(crate) enum Message {
    /// Commands to be decided in order, in one round.
    Decide { requests: Vec<Request>, reply: Reply<Vec<Result<Outcome, CommandError>>> },
    /// The aggregate as it is.
    Look { stream: StreamId, reply: Reply<Result<Snapshot, CommandError>> },
    /// Whether a command was applied at a stream.
    Knows { stream: StreamId, command_id: Uuid, reply: Reply<Result<bool, CommandError>> },
    /// The aggregate once nothing a client waits for is under way.
    Settled { stream: StreamId, reply: Reply<Result<Snapshot, CommandError>> },
}

impl Message {
    /// Answers that nothing was applied.
    fn refuse(self, why: &'static str) {
        let error = CommandError::NotApplied(why);
        // Whoever asked may be gone: nobody is left to tell.
        match self {
            Self::Decide { requests, reply } => {
                let _ = reply.send(requests.iter().map(|_| Err(error.clone())).collect());
            }
            Self::Look { reply, .. } | Self::Settled { reply, .. } => {
                let _ = reply.send(Err(error));
            }
            Self::Knows { reply, .. } => {
                let _ = reply.send(Err(error));
            }
        }
    }
}

/// The way to a shard.
#[derive(Clone)]
pub(crate) struct ShardHandle {
    pub(crate) commands: mpsc::Sender<Message>,
    pub(crate) internal: mpsc::Sender<Message>,
    pub(crate) status: StatusCell,
}

/// A shard's ends of its mailboxes.
pub(crate) struct Mailboxes {
    commands: mpsc::Receiver<Message>,
    internal: mpsc::Receiver<Message>,
    status: StatusCell,
}

/// The two mailboxes of a partition, `capacity` messages each.
pub(crate) fn mailboxes(partition: Partition, capacity: usize) -> (ShardHandle, Mailboxes) {
    let (commands, commands_inbox) = mpsc::channel(capacity);
    let (internal, internal_inbox) = mpsc::channel(capacity);
    let status = StatusCell::new(partition);
    (
        ShardHandle { commands, internal, status: status.clone() },
        Mailboxes { commands: commands_inbox, internal: internal_inbox, status },
    )
}
