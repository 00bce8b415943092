//! The only writer of a partition: a single-threaded state machine with two bounded mailboxes.
//!
//! It works in rounds. It takes the messages that wait, the program's own commands first; looks up
//! each command id; decides; applies the events to an overlay at once, so that the next command
//! sees them; and appends all events as one batch. If the append succeeds, it merges the overlay
//! and gives all answers. Otherwise it drops the whole overlay and reopens the partition.
//!
//! An answer that appends nothing is valid only while the shard still owns the partition. So the
//! shard gives it at once only within [`LEASE`] of the start of a successful commit; otherwise it
//! first commits a beat.

mod batch;
mod clock;
mod deadlines;
mod dedupe;
mod memory;
mod recovery;
mod run;
mod serving;
mod snapshot;

use crate::request::{CommandError, Outcome, Request, StateView};
use events::{Partition, StreamId};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

pub(crate) use clock::LogClock;
pub(crate) use run::Shard;
pub use snapshot::{PartitionSnapshot, SnapshotError, SnapshotFiles, SnapshotStore};

/// How long after the start of a successful commit the shard gives answers that append nothing
/// without another commit. Such an answer can be stale only during a takeover, and by no more than
/// this.
pub const LEASE: Duration = Duration::from_secs(2);

/// The largest number of messages in one round.
const MAX_ROUND: usize = 1024;

/// The state of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardState {
    /// The partition is being opened or reopened.
    Opening,
    /// The shard serves the partition.
    Open,
    /// Another process has claimed the partition.
    Foreign {
        /// The id of that process.
        node: Uuid,
    },
    /// The log cannot be folded; trying again does not help.
    Failed,
    /// The program is stopping.
    Stopped,
}

/// The status of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardStatus {
    /// The partition.
    pub partition: Partition,
    /// Its state.
    pub state: ShardState,
    /// The term of its writer; 0 before the partition is first open.
    pub term: u64,
}

/// A shard's status, shared with its readers.
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

/// Sends an answer.
fn tell<T>(reply: Reply<T>, answer: T) {
    // This fails if the caller has stopped waiting; then there is nobody to tell.
    let _ = reply.send(answer);
}

/// A message to a shard.
pub(crate) enum Message {
    /// Decide these commands in order, in one round.
    Decide { requests: Vec<Request>, reply: Reply<Vec<Result<Outcome, CommandError>>> },
    /// Answer a query, which changes nothing.
    Query(Query),
    /// Answer a query at once, from memory, even if another process may own the partition by now.
    Glance(Query),
}

/// A question to a shard. The answer depends on the shard still owning the partition.
pub(crate) enum Query {
    /// The current state of a stream.
    State { stream: StreamId, reply: Reply<Result<StateView, CommandError>> },
    /// Whether the shard remembers that it has applied a command at a stream.
    WasApplied { stream: StreamId, command_id: Uuid, reply: Reply<Result<bool, CommandError>> },
    /// The state of a stream once it is [final](crate::request::State::is_final).
    AwaitFinal { stream: StreamId, reply: Reply<Result<StateView, CommandError>> },
}

impl Message {
    /// Answers that nothing was applied.
    fn refuse(self, why: &'static str) {
        match self {
            Self::Decide { requests, reply } => {
                let error = CommandError::NotApplied(why);
                tell(reply, requests.iter().map(|_| Err(error.clone())).collect());
            }
            Self::Query(query) | Self::Glance(query) => query.refuse(why),
        }
    }
}

impl Query {
    /// Answers that the partition cannot answer.
    fn refuse(self, why: &'static str) {
        let error = CommandError::NotApplied(why);
        match self {
            Self::State { reply, .. } | Self::AwaitFinal { reply, .. } => tell(reply, Err(error)),
            Self::WasApplied { reply, .. } => tell(reply, Err(error)),
        }
    }
}

/// The senders of a shard's mailboxes, and its status.
#[derive(Clone)]
pub(crate) struct ShardHandle {
    pub(crate) commands: mpsc::Sender<Message>,
    pub(crate) internal: mpsc::Sender<Message>,
    pub(crate) status: StatusCell,
}

/// The shard's ends of its mailboxes.
pub(crate) struct Mailboxes {
    commands: mpsc::Receiver<Message>,
    internal: mpsc::Receiver<Message>,
    status: StatusCell,
}

/// The two mailboxes of a partition, with room for `capacity` messages each.
pub(crate) fn mailboxes(partition: Partition, capacity: usize) -> (ShardHandle, Mailboxes) {
    let (commands, commands_inbox) = mpsc::channel(capacity);
    let (internal, internal_inbox) = mpsc::channel(capacity);
    let status = StatusCell::new(partition);
    (
        ShardHandle { commands, internal, status: status.clone() },
        Mailboxes { commands: commands_inbox, internal: internal_inbox, status },
    )
}
