//! Sends commands to the shards that own their streams.

use crate::{
    request::{CommandError, Outcome, Request, StateView},
    shard::{LogClock, Message, Query, ShardHandle, ShardStatus},
};
use events::{Environment, Partition, StreamId, Timestamp, partitioner::partition_of};
use std::{sync::Arc, time::Duration};
use tokio::sync::{mpsc::error::TrySendError, oneshot};
use uuid::Uuid;

/// How long [`Router::send`] retries a command that was certainly not applied before it reports the
/// error.
const RETRY_FOR: Duration = Duration::from_secs(3);
const RETRY_DELAY: Duration = Duration::from_millis(20);
const RETRY_DELAY_MAX: Duration = Duration::from_millis(500);

/// Gives access to all shards; cheap to clone.
#[derive(Clone)]
pub struct Router {
    environment: Arc<dyn Environment>,
    clock: Arc<LogClock>,
    shards: Arc<[ShardHandle]>,
}

impl Router {
    pub(crate) fn new(
        environment: Arc<dyn Environment>,
        clock: Arc<LogClock>,
        shards: Vec<ShardHandle>,
    ) -> Self {
        Self { environment, clock, shards: shards.into() }
    }

    /// Log time: the wall clock, or what was seen in the log if that is later.
    pub fn log_time(&self) -> Timestamp {
        self.clock.at(self.environment.now())
    }

    /// How far log time is ahead of the wall clock: the clock of this machine, or of another that
    /// wrote to the log, was once wrong, or is wrong now.
    pub fn log_time_ahead(&self) -> Duration {
        self.clock.ahead_of(self.environment.now())
    }

    /// The partition that contains a stream.
    pub fn partition_of(&self, stream: StreamId) -> Partition {
        // There is one shard for each partition, and the number of partitions fits 32 bits.
        partition_of(stream, u32::try_from(self.shards.len()).unwrap_or(u32::MAX))
    }

    /// The status of each partition.
    pub fn status(&self) -> Vec<ShardStatus> {
        self.shards.iter().map(|shard| shard.status.get()).collect()
    }

    /// Sends a command. The answer arrives after everything it depends on is durable. A command
    /// that was certainly not applied is retried for a bounded time. Dropping the future does not
    /// withdraw the command.
    ///
    /// # Errors
    /// Any [`CommandError`].
    pub async fn send(&self, request: Request) -> Result<Outcome, CommandError> {
        let began = self.environment.monotonic();
        let mut delay = RETRY_DELAY;
        loop {
            match self.try_send(request.clone()).await {
                Err(CommandError::NotApplied(_))
                    if self.environment.monotonic().saturating_sub(began) < RETRY_FOR =>
                {
                    self.environment.sleep(delay).await;
                    delay = (delay * 2).min(RETRY_DELAY_MAX);
                }
                answer => return answer,
            }
        }
    }

    /// Sends a command once.
    ///
    /// # Errors
    /// Any [`CommandError`].
    pub async fn try_send(&self, request: Request) -> Result<Outcome, CommandError> {
        let (reply, answer) = oneshot::channel();
        let shard = self.shard(request.stream);
        let message = Message::Decide { requests: vec![request], reply };
        shard.commands.try_send(message).map_err(|error| not_taken(&error))?;
        let mut answers = answer.await.map_err(|_| CommandError::OutcomeUnknown)?;
        answers.pop().unwrap_or(Err(CommandError::OutcomeUnknown))
    }

    /// Sends commands of the program's own to the one shard that owns all their streams. The shard
    /// decides them in order, in one round, before clients' commands. The result is empty if the
    /// shard is gone.
    pub(crate) async fn send_internal(
        &self,
        requests: Vec<Request>,
    ) -> Vec<Result<Outcome, CommandError>> {
        let Some(first) = requests.first() else { return Vec::new() };
        let shard = self.shard(first.stream);
        let (reply, answers) = oneshot::channel();
        if shard.internal.send(Message::Decide { requests, reply }).await.is_err() {
            return Vec::new();
        }
        answers.await.unwrap_or_default()
    }

    /// The current state of an aggregate, from its shard and never from a read model.
    ///
    /// # Errors
    /// [`CommandError::NotApplied`] if the partition is not open.
    pub async fn state(&self, stream: StreamId) -> Result<StateView, CommandError> {
        self.ask(stream, |reply| Message::Query(Query::State { stream, reply })).await
    }

    /// The same at once, also if another process may own the partition by now: for a look on which
    /// nothing rests, and which must not cost the log a record.
    ///
    /// # Errors
    /// As [`state`](Self::state).
    pub async fn glance(&self, stream: StreamId) -> Result<StateView, CommandError> {
        self.ask(stream, |reply| Message::Glance(Query::State { stream, reply })).await
    }

    /// Whether the stream's shard remembers that it has applied a command with a fingerprint. If
    /// so, the shard does not decide the command again. Answered at once: a command that another
    /// process has applied is still found when it is decided.
    ///
    /// # Errors
    /// [`CommandError::NotApplied`] if the partition is not open.
    pub async fn was_applied(
        &self,
        stream: StreamId,
        command_id: Uuid,
    ) -> Result<bool, CommandError> {
        let query = |reply| Query::WasApplied { stream, command_id, reply };
        self.ask(stream, |reply| Message::Glance(query(reply))).await
    }

    /// Waits until the stream has no operation in progress that a client may be waiting for: an
    /// order is no longer pending, a registration or a change of address has been answered. `None`
    /// if that takes longer than `within`.
    ///
    /// # Errors
    /// Only if the partition is closed and stays closed.
    pub async fn await_final(
        &self,
        stream: StreamId,
        within: Duration,
    ) -> Result<Option<StateView>, CommandError> {
        let final_state = async {
            loop {
                let query = |reply| Message::Query(Query::AwaitFinal { stream, reply });
                match self.ask(stream, query).await {
                    // The shard has reopened its partition and has lost its list of waiting
                    // callers.
                    Err(CommandError::NotApplied(_) | CommandError::OutcomeUnknown) => {
                        self.environment.sleep(RETRY_DELAY).await;
                    }
                    answer => return answer.map(Some),
                }
            }
        };
        tokio::select! {
            biased;
            final_state = final_state => final_state,
            () = self.environment.sleep(within) => Ok(None),
        }
    }

    async fn ask<T>(
        &self,
        stream: StreamId,
        message: impl FnOnce(oneshot::Sender<Result<T, CommandError>>) -> Message,
    ) -> Result<T, CommandError> {
        let (reply, answer) = oneshot::channel();
        let shard = self.shard(stream);
        shard.commands.try_send(message(reply)).map_err(|error| not_taken(&error))?;
        answer.await.map_err(|_| CommandError::OutcomeUnknown)?
    }

    fn shard(&self, stream: StreamId) -> &ShardHandle {
        &self.shards[self.partition_of(stream).0 as usize]
    }
}

fn not_taken(error: &TrySendError<Message>) -> CommandError {
    CommandError::NotApplied(match error {
        TrySendError::Full(_) => "the partition's mailbox is full",
        TrySendError::Closed(_) => "the partition is closed",
    })
}
