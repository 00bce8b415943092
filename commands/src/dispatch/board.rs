//! The effects that are owed now, by stream. This is all that the dispatchers remember.
//!
//! After each commit a shard posts everything that the changed streams owe, whatever they owed
//! before; when it opens, it posts everything that its partition owes. The board has one entry for
//! each stream that owes something, so it is as bounded as the shards' own state, and posting never
//! waits. The effects of a stream on one queue are carried out by one task at a time, even if its
//! partition is reopened meanwhile. Payments and letters have queues of their own: the stock of a
//! cancelled order is free at once, however long the bank or the mail server takes.

use super::Effect;
use events::{Environment, Partition, StreamId, StreamKind};
use rustc_hash::FxHashMap;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;

/// The back-off of a stream whose effects failed.
const DELAY: Duration = Duration::from_millis(50);
const DELAY_MAX: Duration = Duration::from_secs(30);

/// The longest back-off of letters: a recipient's server may defer one for hours.
const MAIL_DELAY_MAX: Duration = Duration::from_mins(2);

/// When a stream is to be tried: earliest first, and at the same moment in order of posting.
type Due = (Duration, u64);

/// A stream on the board.
struct Entry {
    partition: Partition,
    /// Failed attempts in a row.
    failures: u32,
    state: Owing,
}

/// What a stream owes, and whether a task carries it out.
enum Owing {
    /// It owes these effects and waits for its next attempt.
    Waiting { effects: Vec<Effect>, due: Due },
    /// A task carries out its effects. These are the effects it owes by now; they may be others
    /// than those the task was given.
    UnderWay { effects: Vec<Effect> },
    /// A task carries out effects that are no longer owed, as far as the board knows. The entry
    /// stays, so that effects posted meanwhile do not get a second task.
    Withdrawn,
}

impl Owing {
    fn effects(&self) -> &[Effect] {
        match self {
            Self::Waiting { effects, .. } | Self::UnderWay { effects } => effects,
            Self::Withdrawn => &[],
        }
    }
}

#[derive(Default)]
struct Entries {
    streams: FxHashMap<StreamId, Entry>,
    /// The streams that wait.
    due: BTreeMap<Due, StreamId>,
    posted: u64,
}

impl Entries {
    /// Lets a stream wait with these effects until `at`.
    fn wait(
        &mut self,
        stream: StreamId,
        partition: Partition,
        failures: u32,
        effects: Vec<Effect>,
        at: Duration,
    ) {
        self.posted += 1;
        let due = (at, self.posted);
        let entry = Entry { partition, failures, state: Owing::Waiting { effects, due } };
        let before = self.streams.insert(stream, entry);
        if let Some(Entry { state: Owing::Waiting { due, .. }, .. }) = before {
            self.due.remove(&due);
        }
        self.due.insert(due, stream);
    }

    /// Records what a stream owes now. Returns whether it can be tried at once because of that.
    fn post(
        &mut self,
        stream: StreamId,
        partition: Partition,
        effects: Vec<Effect>,
        now: Duration,
    ) -> bool {
        match self.streams.get_mut(&stream) {
            // Nothing new: it waits already, or a task carries it out.
            Some(entry) if entry.state.effects() == effects => false,
            Some(Entry { state: Owing::Waiting { .. }, .. }) | None => {
                self.wait(stream, partition, 0, effects, now);
                true
            }
            Some(entry) => {
                // The task finds the new effects when it is done with the old ones.
                (entry.state, entry.failures) = (Owing::UnderWay { effects }, 0);
                false
            }
        }
    }

    /// Removes what a stream owes.
    fn withdraw(&mut self, stream: StreamId) {
        let Some(entry) = self.streams.get_mut(&stream) else { return };
        match entry.state {
            Owing::Waiting { due, .. } => {
                self.due.remove(&due);
                self.streams.remove(&stream);
            }
            Owing::UnderWay { .. } | Owing::Withdrawn => entry.state = Owing::Withdrawn,
        }
    }
}

/// The effects that all streams of this process's partitions owe.
pub struct Board {
    /// What other streams must be told.
    pub(super) effects: Arc<Queue>,
    /// What is to be done at the payment gateway.
    pub(super) payments: Arc<Queue>,
    pub(super) mail: Arc<Queue>,
}

/// The effects of one kind.
pub struct Queue {
    environment: Arc<dyn Environment>,
    /// The metric that tells how many streams are on it.
    gauge: &'static str,
    delay_max: Duration,
    entries: Mutex<Entries>,
    wake: Notify,
}

/// What a task does after it has tried a stream's effects.
pub enum Next {
    /// The stream owes other effects now: carry out these.
    Effects(Vec<Effect>),
    /// The stream owes nothing, or waits for its next attempt.
    Done,
}

impl Board {
    /// An empty board.
    pub fn new(environment: &Arc<dyn Environment>) -> Self {
        let queue =
            |gauge, delay_max| Arc::new(Queue::new(Arc::clone(environment), gauge, delay_max));
        Self {
            effects: queue("orderlog_owing_streams", DELAY_MAX),
            payments: queue("orderlog_owed_payments", DELAY_MAX),
            mail: queue("orderlog_owed_letters", MAIL_DELAY_MAX),
        }
    }

    /// Posts what streams of a partition owe now. An empty list removes a stream from the board.
    pub fn post(&self, partition: Partition, owed: Vec<(StreamId, Vec<Effect>)>) {
        let (mut letters, mut payments) = (Vec::new(), Vec::new());
        let mut effects = Vec::with_capacity(owed.len());
        for (stream, owed) in owed {
            let (mail, rest): (Vec<_>, Vec<_>) = owed.into_iter().partition(Effect::is_mail);
            let (payment, rest): (Vec<_>, Vec<_>) = rest.into_iter().partition(Effect::is_payment);
            if stream.kind == StreamKind::Order {
                letters.push((stream, mail));
                payments.push((stream, payment));
            }
            effects.push((stream, rest));
        }
        self.mail.post(partition, letters);
        self.payments.post(partition, payments);
        self.effects.post(partition, effects);
    }

    /// Removes a partition that is no longer served from the board.
    pub fn retract(&self, partition: Partition) {
        self.mail.retract(partition);
        self.payments.retract(partition);
        self.effects.retract(partition);
    }

    /// The number of streams that owe something or whose effects are being carried out. A stream
    /// counts once for each queue.
    pub fn len(&self) -> usize {
        self.effects.len() + self.payments.len() + self.mail.len()
    }

    /// Whether no stream owes anything.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Queue {
    fn new(environment: Arc<dyn Environment>, gauge: &'static str, delay_max: Duration) -> Self {
        Self { environment, gauge, delay_max, entries: Mutex::default(), wake: Notify::new() }
    }

    /// Tells the metric how many streams are on the queue. Whatever adds or removes one ends here.
    fn measure(&self, entries: &Entries) {
        let streams = u32::try_from(entries.streams.len()).unwrap_or(u32::MAX);
        metrics::gauge!(self.gauge).set(streams);
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn post(&self, partition: Partition, owed: Vec<(StreamId, Vec<Effect>)>) {
        let now = self.environment.monotonic();
        let mut entries = self.entries();
        let mut news = false;
        for (stream, effects) in owed {
            if effects.is_empty() {
                entries.withdraw(stream);
            } else {
                news |= entries.post(stream, partition, effects, now);
            }
        }
        self.measure(&entries);
        drop(entries);
        if news {
            self.wake.notify_one();
        }
    }

    /// Tries a stream at once if it waits for its next attempt, because something outside has
    /// changed.
    pub fn hurry(&self, stream: StreamId) {
        let now = self.environment.monotonic();
        let mut entries = self.entries();
        if let Some(Entry { partition, failures, state: Owing::Waiting { effects, .. } }) =
            entries.streams.get_mut(&stream)
        {
            let (partition, failures, effects) = (*partition, *failures, std::mem::take(effects));
            entries.wait(stream, partition, failures, effects, now);
            drop(entries);
            self.wake.notify_one();
        }
    }

    fn len(&self) -> usize {
        self.entries().streams.len()
    }

    fn retract(&self, partition: Partition) {
        let mut entries = self.entries();
        let gone = entries.streams.iter().filter(|(_, entry)| entry.partition == partition);
        let gone: Vec<StreamId> = gone.map(|(&stream, _)| stream).collect();
        for stream in gone {
            entries.withdraw(stream);
        }
        self.measure(&entries);
    }

    /// Takes the stream that is due first, with the effects it owes. The caller carries them out
    /// and then calls [`carried_out`](Self::carried_out). If no stream is due, the error is the
    /// time until one is; `None` if none waits.
    pub fn take_due(&self) -> Result<(StreamId, Vec<Effect>), Option<Duration>> {
        let now = self.environment.monotonic();
        let mut entries = self.entries();
        let Some((&due, &stream)) = entries.due.first_key_value() else { return Err(None) };
        if let Some(wait) = due.0.checked_sub(now).filter(|wait| !wait.is_zero()) {
            return Err(Some(wait));
        }
        entries.due.remove(&due);
        let Some(entry) = entries.streams.get_mut(&stream) else {
            return Err(Some(Duration::ZERO));
        };
        let effects = entry.state.effects().to_vec();
        entry.state = Owing::UnderWay { effects: effects.clone() };
        Ok((stream, effects))
    }

    /// Resolves when something new is posted.
    pub async fn news(&self) {
        self.wake.notified().await;
    }

    /// Reports that `tried` has been carried out, with or without success. If the stream owes other
    /// effects by now, the caller goes on with those. If it still owes the same ones, they have
    /// failed, and it waits for its next attempt.
    pub fn carried_out(&self, stream: StreamId, tried: &[Effect]) -> Next {
        let now = self.environment.monotonic();
        let mut entries = self.entries();
        let Some(entry) = entries.streams.get_mut(&stream) else { return Next::Done };
        let effects = match &mut entry.state {
            Owing::Withdrawn => {
                entries.streams.remove(&stream);
                self.measure(&entries);
                return Next::Done;
            }
            Owing::UnderWay { effects } | Owing::Waiting { effects, .. } if *effects != tried => {
                return Next::Effects(effects.clone());
            }
            Owing::UnderWay { effects } | Owing::Waiting { effects, .. } => std::mem::take(effects),
        };
        let (partition, failures) = (entry.partition, entry.failures + 1);
        let delay = DELAY.saturating_mul(1 << failures.min(10)).min(self.delay_max);
        let at = now + delay / 2 + self.environment.jitter(delay / 2);
        entries.wait(stream, partition, failures, effects, at);
        drop(entries);
        self.wake.notify_one();
        Next::Done
    }
}
