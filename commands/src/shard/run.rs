//! The main loop of a shard.

use super::{
    LEASE, MAX_ROUND, Mailboxes, Message, Query, ShardState,
    batch::Round,
    clock::LogClock,
    deadlines::Deadlines,
    memory::Memory,
    recovery::{Dormant, Doubt, NotOpened, Opened},
    serving::{Serving, sleep_until_due},
    snapshot::{PartitionSnapshot, SnapshotStore},
};
use crate::{dispatch::Board, request::CommandError};
use events::{
    Environment, Offset, Partition,
    log::{AppendError, EventLog, ReadError, Writer},
    planted::Bug,
};
use futures::FutureExt;
use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::sync::watch;
use tracing::{error, info, warn};
use uuid::Uuid;

/// The back-off between attempts to open a partition.
const REOPEN_DELAY: Duration = Duration::from_millis(50);
const REOPEN_DELAY_MAX: Duration = Duration::from_secs(5);

/// While a partition opens, messages that wait longer than this are refused as not applied.
const PATIENCE: Duration = Duration::from_secs(2);

/// One partition's shard.
pub struct Shard {
    pub(crate) partition: Partition,
    pub(crate) node: Uuid,
    pub(crate) grace: Duration,
    pub(crate) order_deadline: Duration,
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) environment: Arc<dyn Environment>,
    pub(crate) clock: Arc<LogClock>,
    pub(crate) board: Arc<Board>,
    pub(crate) snapshots: Option<Arc<dyn SnapshotStore>>,
    pub(crate) inbox: Mailboxes,
    pub(crate) stop: watch::Receiver<bool>,
}

/// The longest pause before a reopening whose predecessor failed early. Every opening leaves a
/// claim in the log.
const FLAPPING_DELAY_MAX: Duration = Duration::from_millis(500);

/// How long the owner of a partition must have written nothing before another process, which has been
/// overtaken by it and is asked for the partition, claims the partition.
const ABANDONED: Duration = Duration::from_secs(30);

/// Why a shard stopped serving.
enum End {
    Stop,
    /// The last commit was answered, but the log library may still send it a second time.
    Spent,
    /// An append failed.
    Failed(Option<Doubt>),
}

impl Shard {
    /// Opens the partition and serves it until told to stop; reopens it after any failure.
    pub async fn run(self) {
        let (partition, board) = (self.partition, Arc::clone(&self.board));
        let status = self.inbox.status.clone();
        // A panic is a bug in this program or in the log's library. The status must not go on
        // saying that the partition is open.
        if AssertUnwindSafe(self.live()).catch_unwind().await.is_err() {
            status.set(ShardState::Failed, 0);
            board.retract(partition);
            metrics::counter!("orderlog_shard_failed_total").increment(1);
            error!(
                partition = partition.0,
                "the task of the partition panicked: the partition stays closed"
            );
        }
    }

    async fn live(mut self) {
        let Some(memory) = self.recall().await else { return self.refuse_all().await };
        let mut dormant = Dormant { memory, doubt: None, claim: None, abandoned: None };
        let mut pause = Duration::ZERO;
        while let Some((writer, began)) = self.open(&mut dormant, pause).await {
            let (term, claim) = (writer.term(), dormant.claim);
            let opened = self.environment.monotonic();
            self.clock.observe(dormant.memory.time);
            let grace_over = opened.saturating_add(self.grace);
            let deadlines = Deadlines::new(self.order_deadline);
            let mut serving = Serving::new(dormant.memory, writer, began, grace_over, deadlines);
            // The board comes first, so that a caller who has been answered finds the next effects
            // on it.
            serving.derive_all(&self.board, &*self.environment);
            if let Some(doubt) = dormant.doubt {
                doubt.resolve(self.partition);
            }
            self.inbox.status.set(ShardState::Open, term);
            info!(partition = self.partition.0, term, "partition opened");
            self.save_if_due(&mut serving.memory);
            let end = self.serve(&mut serving).await;
            self.board.retract(self.partition);
            let served = self.environment.monotonic().saturating_sub(opened);
            let doubt;
            (pause, doubt) = match end {
                End::Stop => {
                    self.save_at_stop(&serving.memory).await;
                    break;
                }
                End::Failed(doubt) if served < REOPEN_DELAY_MAX => {
                    ((pause * 2).clamp(REOPEN_DELAY, FLAPPING_DELAY_MAX), doubt)
                }
                End::Failed(doubt) => (Duration::ZERO, doubt),
                End::Spent => {
                    warn!(
                        partition = self.partition.0,
                        "a commit was slow: reopening the partition"
                    );
                    (Duration::ZERO, None)
                }
            };
            self.inbox.status.set(ShardState::Opening, term);
            metrics::counter!("orderlog_shard_reopened_total").increment(1);
            dormant = Dormant { memory: serving.memory, doubt, claim, abandoned: None };
        }
        if *self.stop.borrow() {
            self.inbox.status.set(ShardState::Stopped, 0);
        }
        self.refuse_all().await;
    }

    /// What is known of the partition before the log is read: the last snapshot, if it belongs to
    /// this log. `None` if the program is stopping.
    async fn recall(&mut self) -> Option<Memory> {
        let (partition, environment) = (self.partition, Arc::clone(&self.environment));
        let nothing = Memory::new(partition);
        let Some(store) = self.snapshots.clone() else { return Some(nothing) };
        let Some(snapshot) = self.patiently(store.load(partition)).await? else {
            return Some(nothing);
        };
        let log = Arc::clone(&self.log);
        loop {
            match self.patiently(snapshot.is_of(&*log)).await? {
                Ok(true) => return Some(snapshot.into_memory()),
                Ok(false) => {
                    warn!(partition = partition.0, "a snapshot of another log is ignored");
                    return Some(nothing);
                }
                // Opening the partition will report the damage.
                Err(ReadError::Damaged { .. }) => return Some(nothing),
                Err(unavailable) => {
                    warn_unopened(partition, &unavailable);
                    self.inbox.refuse_waiting("the partition is not open");
                    self.patiently(environment.sleep(REOPEN_DELAY_MAX)).await?;
                }
            }
        }
    }

    /// Saves a snapshot in the background, if there are enough new events.
    fn save_if_due(&self, memory: &mut Memory) {
        let is_due = |store: &Arc<dyn SnapshotStore>| {
            memory.unsaved >= store.every().max(memory.streams.len())
        };
        let Some(store) = self.snapshots.clone().filter(is_due) else { return };
        memory.unsaved = 0;
        if let Some(snapshot) = PartitionSnapshot::of(memory) {
            self.environment.spawn(Box::pin(async move { store.save(snapshot).await }));
        }
    }

    async fn save_at_stop(&self, memory: &Memory) {
        let store = self.snapshots.as_ref();
        let store = store.filter(|store| memory.unsaved >= store.worth_at_stop());
        if let (Some(store), Some(snapshot)) = (store, PartitionSnapshot::of(memory)) {
            store.save(snapshot).await;
        }
    }

    /// Waits until the owner of the partition seems to be gone: this process is asked for the
    /// partition, and the owner has written nothing for [`ABANDONED`]. An owner that is asked, too,
    /// proves every [`LEASE`] that it still owns the partition, and that is in the log. To be wrong
    /// costs no more than another claim: the owner then gives way. `None` if the program is stopping,
    /// or if the log cannot be folded.
    async fn until_abandoned(&mut self, dormant: &mut Dormant) -> Option<()> {
        let (log, environment) = (Arc::clone(&self.log), Arc::clone(&self.environment));
        let (mut silent_since, mut looked) = (None, None);
        loop {
            let message = tokio::select! {
                biased;
                _ = self.stop.wait_for(|stop| *stop) => return None,
                Some(message) = self.inbox.internal.recv() => message,
                Some(message) = self.inbox.commands.recv() => message,
                else => return None,
            };
            message.refuse("another process owns the partition");
            let now = environment.monotonic();
            if looked.is_some_and(|looked| now.saturating_sub(looked) < LEASE) {
                continue;
            }
            looked = Some(now);
            let before = dormant.memory.cursor;
            let read = self.patiently(dormant.catch_up(&*log)).await?;
            let is_silent = match read {
                Ok(()) => dormant.memory.cursor == before,
                Err(NotOpened::Later(_)) => false,
                // The next attempt to open the partition tells.
                Err(_) => return Some(()),
            };
            let since = *silent_since.get_or_insert(now);
            if !is_silent {
                silent_since = Some(now);
            } else if now.saturating_sub(since) >= ABANDONED {
                dormant.abandoned = dormant.claim;
                return Some(());
            }
        }
    }

    /// Tries until the partition is open; waits for `pause` before the first attempt. `None` if it
    /// can never be opened by this process, or the program is stopping.
    async fn open(&mut self, dormant: &mut Dormant, pause: Duration) -> Option<(Writer, Duration)> {
        let mut delay = REOPEN_DELAY;
        let reopening = dormant.claim.is_some();
        let environment = Arc::clone(&self.environment);
        if !pause.is_zero() {
            self.patiently(environment.sleep(pause)).await?;
        }
        loop {
            let (log, node) = (Arc::clone(&self.log), self.node);
            let opening = dormant.open(&*log, &*environment, node, reopening);
            match self.patiently(opening).await? {
                Ok(Opened::Serving { writer, began }) => return Some((writer, began)),
                Ok(Opened::Foreign { term, node }) => {
                    // The other process fenced our lanes before its claim. So a batch in doubt that
                    // is not in front of that claim will never be in the log.
                    if let Some(doubt) = dormant.doubt.take() {
                        doubt.resolve(self.partition);
                    }
                    self.inbox.status.set(ShardState::Foreign { node }, term);
                    warn!(
                        partition = self.partition.0,
                        term,
                        %node,
                        "another process has claimed the partition: this process no longer serves it"
                    );
                    self.until_abandoned(dormant).await?;
                    warn!(
                        partition = self.partition.0,
                        term,
                        %node,
                        "the process that owns the partition is silent, and this one is asked for it: \
                         claiming it"
                    );
                    self.inbox.status.set(ShardState::Opening, term);
                }
                Err(NotOpened::Later(source)) => {
                    warn_unopened(self.partition, &source);
                    self.inbox.refuse_waiting("the partition is not open");
                    let pause = environment.sleep(delay + environment.jitter(delay));
                    self.patiently(pause).await?;
                    delay = (delay * 2).min(REOPEN_DELAY_MAX);
                }
                Err(never) => {
                    self.inbox.status.set(ShardState::Failed, 0);
                    metrics::counter!("orderlog_shard_failed_total").increment(1);
                    let cause = &never as &dyn std::error::Error;
                    error!(
                        partition = self.partition.0,
                        cause, "the partition cannot be opened and stays closed"
                    );
                    return None;
                }
            }
        }
    }

    /// Waits for a step of the opening. Meanwhile refuses messages that have waited longer than
    /// [`PATIENCE`]. `None` if the program is stopping.
    async fn patiently<T>(&mut self, step: impl Future<Output = T>) -> Option<T> {
        let mut step = std::pin::pin!(step);
        loop {
            tokio::select! {
                biased;
                _ = self.stop.wait_for(|stop| *stop) => return None,
                done = &mut step => return Some(done),
                () = self.environment.sleep(PATIENCE) => self.inbox.refuse_waiting("the partition is being opened"),
            }
        }
    }

    /// Serves until told to stop, or until the partition must be reopened.
    async fn serve(&mut self, serving: &mut Serving) -> End {
        loop {
            let due = serving.until_due(&*self.environment);
            let first = tokio::select! {
                biased;
                Some(message) = self.inbox.internal.recv() => Some(message),
                Some(message) = self.inbox.commands.recv() => Some(message),
                _ = self.stop.wait_for(|stop| *stop) => return End::Stop,
                () = sleep_until_due(&*self.environment, due) => None,
            };
            // Callers that were answered by the last round are about to send again. After this
            // yield one batch takes all their commands.
            tokio::task::yield_now().await;
            let now = self.environment.now();
            let mut round = Round::new(self.environment.uuid(), self.clock.at(now));
            let mut queries = Vec::new();
            serving.expire_due(&mut round, self.environment.monotonic());
            let (mut next, mut taken) = (first, 0);
            while let Some(message) = next {
                match message {
                    Message::Decide { requests, reply } => {
                        round.decide(&serving.memory, &requests, reply);
                    }
                    Message::Query(query) => queries.push(query),
                    Message::Glance(query) => serving.answer_one(query),
                }
                taken += 1;
                let room = taken < MAX_ROUND && !round.is_full();
                next = if room { self.inbox.try_next() } else { None };
            }
            // Glances alone are not worth a beat.
            if round.is_untouched() && queries.is_empty() {
                continue;
            }
            if let Err(end) = self.commit(serving, round, queries).await {
                return end;
            }
        }
    }

    /// Makes a round durable and gives its answers.
    async fn commit(
        &self,
        serving: &mut Serving,
        mut round: Round,
        queries: Vec<Query>,
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
            serving.answer(queries);
            return Ok(());
        };
        if Bug::AnswerBeforeDurable.is_planted() {
            for waiting in std::mem::take(&mut round.waiting) {
                waiting.answer(self.partition, &[]);
            }
        }
        let offsets = match serving.writer.append(&batch).await {
            Ok(offsets) if lands_before(&offsets, serving.memory.cursor.offset) => {
                error!(
                    partition = self.partition.0,
                    offset = offsets.first().map(|first| first.0),
                    expected = serving.memory.cursor.offset.0,
                    "an append landed before what was read: the log has lost its end"
                );
                for query in queries {
                    query.refuse("the log has lost its end");
                }
                // What the round rests on may be gone. Its callers learn that its outcome is
                // unknown unless the log can be read from here on.
                return Err(End::Failed(Some(Doubt::new(round))));
            }
            Ok(offsets) => offsets,
            Err(failure) => {
                let cause = &failure as &dyn std::error::Error;
                warn!(
                    partition = self.partition.0,
                    cause, "an append failed: reopening the partition"
                );
                for query in queries {
                    query.refuse("the append failed");
                }
                if Bug::OverlayKept.is_planted() {
                    round.keep(&mut serving.memory);
                }
                return Err(End::Failed(doubt_about(round, &failure)));
            }
        };
        serving.lease_from = began;
        if let (Some(last), Some(record)) = (offsets.last(), batch.records.last()) {
            serving.memory.cursor.offset = last.after();
            serving.memory.pass(record.time);
            self.clock.observe(record.time);
            serving.memory.last = Some((*last, record.event_id));
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
            // The board comes first, so that a caller who has been answered finds the next effects
            // on it.
            serving.after_change(&self.board, changed, &*self.environment);
            for waiting in waiting {
                waiting.answer(self.partition, &offsets);
            }
            serving.memory.unsaved += offsets.len();
            self.save_if_due(&mut serving.memory);
        }
        serving.answer(queries);
        if serving.writer.is_spent() { Err(End::Spent) } else { Ok(()) }
    }

    /// Refuses every message as not applied until the program stops.
    async fn refuse_all(mut self) {
        loop {
            tokio::select! {
                biased;
                Some(message) = self.inbox.internal.recv() => message.refuse("the partition is closed"),
                Some(message) = self.inbox.commands.recv() => message.refuse("the partition is closed"),
                _ = self.stop.wait_for(|stop| *stop) => break,
            }
        }
        self.inbox.close("the program is stopping").await;
    }
}

impl Mailboxes {
    /// The next waiting message, the program's own first.
    fn try_next(&mut self) -> Option<Message> {
        self.internal.try_recv().or_else(|_| self.commands.try_recv()).ok()
    }

    fn refuse_waiting(&mut self, why: &'static str) {
        while let Some(message) = self.try_next() {
            message.refuse(why);
        }
    }

    /// Closes the mailboxes and refuses every message in them. If a message were dropped with its
    /// mailbox, its sender would have to treat the outcome as unknown.
    async fn close(mut self, why: &'static str) {
        self.internal.close();
        self.commands.close();
        while let Some(message) = self.internal.recv().await {
            message.refuse(why);
        }
        while let Some(message) = self.commands.recv().await {
            message.refuse(why);
        }
    }
}

/// Whether a batch landed at offsets that were taken when it was decided: records that this shard
/// has folded are no longer in the log.
fn lands_before(offsets: &[Offset], cursor: Offset) -> bool {
    offsets.first().is_some_and(|first| *first < cursor)
}

/// Handles a round whose append failed: refuses it if nothing of it is in the log, otherwise
/// returns it as doubtful.
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
    warn!(partition = partition.0, cause, "the partition could not be opened: trying again");
}
