//! The state of a shard while it serves: its memory and what derives from it, namely the effects
//! owed, the orders' deadlines and the waiting callers.

use super::{
    Query, Reply,
    batch::Round,
    deadlines::Deadlines,
    memory::{Memory, Stream},
    tell,
};
use crate::{
    dispatch::{Board, owed_by},
    order,
    request::{Command, CommandError, Request, State, StateView},
};
use events::{Environment, Fingerprint, StreamId, Timestamp, log::Writer};
use rustc_hash::FxHashMap;
use std::time::Duration;
use tokio::sync::oneshot;
use uuid::Uuid;

/// The largest number of orders that expire in one round.
const MAX_EXPIRE: usize = 256;

type Waiter = Reply<Result<StateView, CommandError>>;

/// A shard while it serves.
pub struct Serving {
    pub memory: Memory,
    pub writer: Writer,
    /// When the last successful commit began.
    pub lease_from: Duration,
    /// No order expires before this moment, so that orders which were nearly complete when the last
    /// writer died can complete.
    pub grace_over: Duration,
    pub deadlines: Deadlines,
    /// The callers that wait until a stream is final.
    pub waiters: FxHashMap<StreamId, Vec<Waiter>>,
}

/// Sleeps until the next order expires; for ever if none will.
pub async fn sleep_until_due(environment: &dyn Environment, due: Option<Duration>) {
    match due {
        Some(duration) => environment.sleep(duration).await,
        None => std::future::pending().await,
    }
}

impl Serving {
    /// Starts to serve what `memory` contains.
    pub fn new(
        memory: Memory,
        writer: Writer,
        lease_from: Duration,
        grace_over: Duration,
        deadlines: Deadlines,
    ) -> Self {
        Self { memory, writer, lease_from, grace_over, deadlines, waiters: FxHashMap::default() }
    }

    /// Derives from the recovered state what is owed and when orders expire.
    pub fn derive_all(&mut self, board: &Board, clock: &dyn Environment) {
        let mut owed = Vec::new();
        for (&id, stream) in &self.memory.streams {
            if let Some(deadline) = deadline(&stream.state) {
                self.deadlines.note(id.id, Some(deadline), clock);
            }
            let effects = owed_by(&stream.state);
            if !effects.is_empty() {
                owed.push((id, effects));
            }
        }
        // The posting order must not depend on the order of the map.
        owed.sort_by_key(|&(id, _)| id);
        board.post(self.memory.partition, owed);
    }

    /// After a commit: posts what the changed streams owe, updates their deadlines, and answers the
    /// callers that waited for them.
    pub fn after_change(
        &mut self,
        board: &Board,
        changed: Vec<(StreamId, Option<Stream>)>,
        clock: &dyn Environment,
    ) {
        let mut owed = Vec::with_capacity(changed.len());
        for (id, before) in changed {
            let Some(stream) = self.memory.streams.get(&id) else { continue };
            let (then, now) =
                (before.and_then(|before| deadline(&before.state)), deadline(&stream.state));
            if then != now {
                self.deadlines.note(id.id, now, clock);
            }
            if matches!(stream.state, State::Order(_) | State::Customer(_)) {
                owed.push((id, owed_by(&stream.state)));
            }
            if stream.state.is_final()
                && let Some(waiters) = self.waiters.remove(&id)
            {
                let view = stream.view(self.memory.partition, id);
                for waiter in waiters {
                    tell(waiter, Ok(view.clone()));
                }
            }
        }
        if !owed.is_empty() {
            board.post(self.memory.partition, owed);
        }
    }

    /// Answers queries. The shard must know that it still owns the partition.
    pub fn answer(&mut self, queries: Vec<Query>) {
        for query in queries {
            self.answer_one(query);
        }
    }

    /// Answers a query from memory.
    pub fn answer_one(&mut self, query: Query) {
        match query {
            Query::State { stream, reply } => tell(reply, self.memory.view(stream)),
            Query::WasApplied { stream, command_id, reply } => {
                tell(reply, Ok(self.memory.was_applied(stream, command_id)));
            }
            Query::AwaitFinal { stream, reply } => self.await_final(stream, reply),
        }
    }

    fn await_final(&mut self, stream: StreamId, reply: Waiter) {
        if self.memory.streams.get(&stream).is_none_or(|found| found.state.is_final()) {
            return tell(reply, self.memory.view(stream));
        }
        let waiters = self.waiters.entry(stream).or_default();
        // Callers that have stopped waiting must not pile up.
        waiters.retain(|waiter| !waiter.is_closed());
        waiters.push(reply);
    }

    /// How long until the next order may expire; `None` if none will.
    pub fn until_due(&self, environment: &dyn Environment) -> Option<Duration> {
        let due = self.deadlines.next()?.max(self.grace_over);
        Some(due.saturating_sub(environment.monotonic()))
    }

    /// Adds the expiry of orders whose deadline has passed to the round.
    pub fn expire_due(&mut self, round: &mut Round, now: Duration) {
        if now < self.grace_over {
            return;
        }
        for _ in 0..MAX_EXPIRE {
            let Some(order) = self.deadlines.take_due(now) else { return };
            let command_id = Uuid::new_v5(&order, b"expire");
            let expire = Request {
                stream: StreamId::order(order),
                command: Command::Order(order::Command::Expire),
                command_id,
                fingerprint: Fingerprint::default(),
                expected_version: None,
                correlation_id: order,
                causation_id: command_id,
                traceparent: None,
            };
            // The order's state shows the result, so nobody waits for this answer.
            round.decide(&self.memory, &[expire], oneshot::channel().0);
        }
    }
}

/// When the order expires; `None` if it cannot expire any more.
fn deadline(state: &State) -> Option<Timestamp> {
    match state {
        State::Order(order) => order.deadline(),
        _ => None,
    }
}
