//! The loop of a shard.

use super::{
    LEASE, MAX_ROUND, Mailboxes, Message, Reply, ShardState,
    batch::Round,
    memory::{Memory, Stream},
    recovery::{Closed, ClosedError, Doubt},
};
use crate::{
    dispatch::{Board, Owed},
    order,
    request::{Command, CommandError, Request, Snapshot, State},
};
use events::{
    Environment, Fingerprint, Partition, StreamId, Timestamp,
    log::{AppendError, EventLog, Writer},
};
use rustc_hash::FxHashMap;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::sync::{oneshot, watch};
use tracing::{error, info, warn};
use uuid::Uuid;

/// Back-off between tries to open a partition.
const REOPEN_DELAY: Duration = Duration::from_millis(50);
const REOPEN_DELAY_MAX: Duration = Duration::from_secs(5);

/// While a partition opens, what waits for it longer than this is told that it was not applied.
const PATIENCE: Duration = Duration::from_secs(2);

/// The most orders that expire in one round.
const MAX_EXPIRE: usize = 256;

type Waiter = Reply<Result<Snapshot, CommandError>>;

/// One partition's shard.
pub struct Shard {
    pub(crate) partition: Partition,
    pub(crate) node: Uuid,
    pub(crate) grace: Duration,
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) environment: Arc<dyn Environment>,
    pub(crate) board: Arc<Board>,
    pub(crate) inbox: Mailboxes,
    pub(crate) stop: watch::Receiver<bool>,
}

/// A shard while it serves.
struct Serving {
    memory: Memory,
    writer: Writer,
    /// When the last OK commit began.
    lease_from: Duration,
    /// Nothing expires before: what was nearly done when the last writer died gets its chance.
    grace_over: Duration,
    deadlines: BTreeSet<(Timestamp, Uuid)>,
    settled: FxHashMap<StreamId, Vec<Waiter>>,
}

/// Why a shard stopped serving.
enum End {
    Stop,
    Reopen(Option<Doubt>),
}

impl Shard {
    /// Opens the partition and serves it until told to stop; opens it again after any trouble.
    pub async fn run(mut self) {
        let mut closed = Closed { memory: Memory::new(self.partition), doubt: None, claim: None };
        while let Some((writer, began)) = self.open(&mut closed).await {
            let term = writer.term();
            self.inbox.status.set(ShardState::Open, term);
            info!(partition = self.partition.0, term, "partition open");
            let claim = closed.claim;
            let mut serving = Serving {
                writer,
                lease_from: began,
                grace_over: self.environment.monotonic() + self.grace,
                deadlines: BTreeSet::new(),
                settled: FxHashMap::default(),
                memory: closed.memory,
            };
            serving.take_stock(&self.board);
            let end = self.serve(&mut serving).await;
            self.board.retract(self.partition);
            let End::Reopen(doubt) = end else { break };
            self.inbox.status.set(ShardState::Opening, term);
            metrics::counter!("orderlog_shard_reopened_total").increment(1);
            closed = Closed { memory: serving.memory, doubt, claim };
        }
        if *self.stop.borrow() {
            self.inbox.status.set(ShardState::Stopped, 0);
        }
        self.refuse_all().await;
    }

    /// Tries until the partition is open; `None` when it never will be, or the program is ending.
    async fn open(&mut self, closed: &mut Closed) -> Option<(Writer, Duration)> {
        let mut delay = REOPEN_DELAY;
        let reopening = closed.claim.is_some();
        loop {
            let opened = {
                let (log, environment, node) = (&*self.log, &*self.environment, self.node);
                let opening = async {
                    if reopening {
                        closed.catch_up(log).await?;
                        if let Some((term, owner)) =
                            closed.claim.filter(|(_, owner)| *owner != node)
                        {
                            return Ok(Err((term, owner)));
                        }
                    }
                    closed.open(log, environment, node).await.map(Ok)
                };
                let mut opening = std::pin::pin!(opening);
                loop {
                    tokio::select! {
                        biased;
                        _ = self.stop.wait_for(|stop| *stop) => return None,
                        opened = &mut opening => break opened,
                        () = self.environment.sleep(PATIENCE) => self.inbox.refuse_waiting("the partition is being opened"),
                    }
                }
            };
            match opened {
                Ok(Ok(opened)) => {
                    self.resolve(closed);
                    return Some(opened);
                }
                Ok(Err((term, node))) => {
                    // Our lanes were fenced before that claim: what was in doubt and is not before it, is nowhere.
                    self.resolve(closed);
                    self.inbox.status.set(ShardState::Foreign { node }, term);
                    warn!(partition = self.partition.0, term, %node, "another process owns the partition: stepping down");
                    return None;
                }
                Err(ClosedError::Later(source)) => {
                    warn_unopened(self.partition, &source);
                    self.inbox.refuse_waiting("the partition is not open");
                    self.environment.sleep(delay + self.environment.jitter(delay)).await;
                    delay = (delay * 2).min(REOPEN_DELAY_MAX);
                }
                Err(never) => {
                    self.inbox.status.set(ShardState::Failed, 0);
                    metrics::counter!("orderlog_shard_failed_total").increment(1);
                    let cause = &never as &dyn std::error::Error;
                    error!(partition = self.partition.0, cause, "the partition stays closed");
                    return None;
                }
            }
        }
    }

    fn resolve(&self, closed: &mut Closed) {
        if let Some(doubt) = closed.doubt.take() {
            doubt.resolve(self.partition);
        }
    }

    /// Serves until told to stop or until the partition must be opened anew.
    async fn serve(&mut self, serving: &mut Serving) -> End {
        loop {
            let due = serving.until_due(&*self.environment);
            let first = tokio::select! {
                biased;
                Some(message) = self.inbox.internal.recv() => Some(message),
                Some(message) = self.inbox.commands.recv() => Some(message),
                () = sleep_until_due(&*self.environment, due) => None,
                _ = self.stop.wait_for(|stop| *stop) => return End::Stop,
            };
            let time = serving.memory.time.max(self.environment.now());
            let mut round = Round::new(self.environment.uuid(), time);
            let mut looks = Vec::new();
            serving.expire_due(&mut round, self.environment.monotonic());
            let (mut next, mut taken) = (first, 0);
            while let Some(message) = next {
                match message {
                    Message::Decide { requests, reply } => {
                        round.decide(&serving.memory, requests, reply);
                    }
                    look => looks.push(look),
                }
                taken += 1;
                let room = taken < MAX_ROUND && !round.is_full();
                next = if room { self.inbox.try_next() } else { None };
            }
            if let Err(end) = self.commit(serving, round, looks).await {
                return end;
            }
        }
    }

    /// Makes a round durable and gives its answers.
    async fn commit(
        &self,
        serving: &mut Serving,
        mut round: Round,
        looks: Vec<Message>,
    ) -> Result<(), End> {
        let began = self.environment.monotonic();
        let silent = round.is_empty();
        let batch = if !silent {
            let records = std::mem::take(&mut round.records);
            serving.writer.batch(round.batch_id, records)
        } else if began.saturating_sub(serving.lease_from) >= LEASE {
            serving.writer.beat(&*self.environment)
        } else {
            for waiting in round.waiting {
                waiting.answer(self.partition, &[]);
            }
            serving.answer_looks(looks);
            return Ok(());
        };
        let offsets = match serving.writer.append(&batch).await {
            Ok(offsets) => offsets,
            Err(failure) => {
                let cause = &failure as &dyn std::error::Error;
                warn!(
                    partition = self.partition.0,
                    cause, "an append failed: opening the partition anew"
                );
                for look in looks {
                    look.refuse("the append failed");
                }
                return Err(End::Reopen(doubt_about(round, &failure)));
            }
        };
        serving.lease_from = began;
        if let Some(&last) = offsets.last() {
            serving.memory.cursor.offset = last.after();
        }
        metrics::histogram!("orderlog_commit_seconds")
            .record(self.environment.monotonic().saturating_sub(began).as_secs_f64());
        if silent {
            for waiting in round.waiting {
                waiting.answer(self.partition, &[]);
            }
        } else {
            metrics::counter!("orderlog_events_appended_total")
                .increment(batch.records.len() as u64);
            let (changed, waiting) = round.merge(&mut serving.memory, &batch.records, &offsets);
            // First the board: whoever is answered finds what is owed next on it.
            serving.after_change(&self.board, changed);
            for waiting in waiting {
                waiting.answer(self.partition, &offsets);
            }
        }
        serving.answer_looks(looks);
        if serving.writer.is_spent() { Err(End::Reopen(None)) } else { Ok(()) }
    }

    /// Answers everything with "not applied" until the program ends.
    async fn refuse_all(&mut self) {
        loop {
            tokio::select! {
                biased;
                Some(message) = self.inbox.internal.recv() => message.refuse("the partition is closed"),
                Some(message) = self.inbox.commands.recv() => message.refuse("the partition is closed"),
                _ = self.stop.wait_for(|stop| *stop) => break,
            }
        }
        self.inbox.refuse_waiting("the program is ending");
    }
}

impl Mailboxes {
    /// The next message that waits, the program's own first.
    fn try_next(&mut self) -> Option<Message> {
        self.internal.try_recv().or_else(|_| self.commands.try_recv()).ok()
    }

    fn refuse_waiting(&mut self, why: &'static str) {
        while let Some(message) = self.try_next() {
            message.refuse(why);
        }
    }
}

/// Sleeps until the next order expires; for ever when none will.
async fn sleep_until_due(environment: &dyn Environment, due: Option<Duration>) {
    match due {
        Some(duration) => environment.sleep(duration).await,
        None => std::future::pending().await,
    }
}

impl Serving {
    /// Derives from the recovered state what no log record says: what is owed, and when orders expire.
    fn take_stock(&mut self, board: &Board) {
        let mut owed = Vec::new();
        for (&id, stream) in &self.memory.streams {
            if let Some(deadline) = deadline(&stream.state) {
                self.deadlines.insert((deadline, id.id));
            }
            let effects = Owed::by(&stream.state);
            if !effects.is_empty() {
                owed.push((id, effects));
            }
        }
        // In an order of its own, whatever the map's.
        owed.sort_by_key(|&(id, _)| id);
        board.post(self.memory.partition, owed);
    }

    /// After a commit: what the changed streams owe now, when they expire, and who waited for them.
    fn after_change(&mut self, board: &Board, changed: Vec<(StreamId, Option<Stream>)>) {
        let mut owed = Vec::with_capacity(changed.len());
        for (id, before) in changed {
            let Some(stream) = self.memory.streams.get(&id) else { continue };
            let (then, now) =
                (before.and_then(|before| deadline(&before.state)), deadline(&stream.state));
            if then != now {
                then.map(|then| self.deadlines.remove(&(then, id.id)));
                now.map(|now| self.deadlines.insert((now, id.id)));
            }
            if matches!(stream.state, State::Order(_) | State::Customer(_)) {
                owed.push((id, Owed::by(&stream.state)));
            }
            if stream.state.is_settled()
                && let Some(waiters) = self.settled.remove(&id)
            {
                let snapshot = stream.snapshot(self.memory.partition, id);
                for waiter in waiters {
                    let _ = waiter.send(Ok(snapshot.clone()));
                }
            }
        }
        if !owed.is_empty() {
            board.post(self.memory.partition, owed);
        }
    }

    /// Answers what only looks, now that it may be answered.
    fn answer_looks(&mut self, looks: Vec<Message>) {
        for look in looks {
            match look {
                Message::Look { stream, reply } => {
                    let _ = reply.send(self.memory.look(stream));
                }
                Message::Settled { stream, reply } => {
                    match self.memory.streams.get(&stream).filter(|found| !found.state.is_settled())
                    {
                        Some(_) => {
                            let waiters = self.settled.entry(stream).or_default();
                            // Those who waited and left must not pile up.
                            waiters.retain(|waiter| !waiter.is_closed());
                            waiters.push(reply);
                        }
                        None => {
                            let _ = reply.send(self.memory.look(stream));
                        }
                    }
                }
                // Decided in the round, never here.
                decide @ Message::Decide { .. } => decide.refuse("not decided"),
            }
        }
    }

    /// How long until the next order may expire; `None` when none will.
    fn until_due(&self, environment: &dyn Environment) -> Option<Duration> {
        let (deadline, _) = self.deadlines.first()?;
        let left = (*deadline - environment.now()).to_std().unwrap_or_default();
        Some(left.max(self.grace_over.saturating_sub(environment.monotonic())))
    }

    /// Puts the orders whose deadline has passed into the round.
    fn expire_due(&mut self, round: &mut Round, monotonic: Duration) {
        if monotonic < self.grace_over {
            return;
        }
        for _ in 0..MAX_EXPIRE {
            let Some(&(deadline, order)) =
                self.deadlines.first().filter(|(deadline, _)| *deadline <= round.time)
            else {
                return;
            };
            self.deadlines.remove(&(deadline, order));
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
            // The state tells the outcome: nobody waits for this answer.
            round.decide(&self.memory, vec![expire], oneshot::channel().0);
        }
    }
}

/// What becomes of a round whose append failed: answered when nothing of it is in the log, else in doubt.
fn doubt_about(round: Round, failure: &AppendError) -> Option<Doubt> {
    match failure {
        AppendError::Unknown(_) => Some(Doubt::new(round)),
        AppendError::NotApplied(_) => {
            for waiting in round.waiting {
                waiting.fail(&CommandError::NotApplied("the append failed"));
            }
            None
        }
    }
}

fn warn_unopened(partition: Partition, cause: &(dyn std::error::Error + 'static)) {
    warn!(partition = partition.0, cause, "the partition did not open; trying again");
}

/// When the order expires, if it still can.
fn deadline(state: &State) -> Option<Timestamp> {
    match state {
        State::Order(order) => order.deadline(),
        _ => None,
    }
}
