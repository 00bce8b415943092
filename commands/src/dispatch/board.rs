//! What is owed now, by stream: the dispatcher's whole memory.
//!
//! Level-triggered: shards post what a stream owes after each commit, whatever it was before, and all that is owed when they
//! open. The board holds one entry an owing stream and nothing else, so it is as bounded as the shards' own state, and posting
//! never waits. A stream is in one hand at a time, also across a reopening of its partition. Letters are in a queue of their own:
//! what else an order owes does not wait for its mail.

use super::Effect;
use events::{Environment, Partition, StreamId, StreamKind};
use rustc_hash::FxHashMap;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;

/// Back-off of a stream whose effects did not come through.
const DELAY: Duration = Duration::from_millis(50);
const DELAY_MAX: Duration = Duration::from_secs(30);

/// The same for letters: a recipient's server may refuse for hours.
const MAIL_DELAY_MAX: Duration = Duration::from_mins(2);

/// A moment on the board, earliest first, in order of posting.
type Due = (Duration, u64);

struct Owing {
    partition: Partition,
    /// Never empty but in the hand of one who carries out what is no longer owed, or no longer known to be.
    effects: Vec<Effect>,
    failures: u32,
    /// When it is to be tried; `None` while it is being carried out.
    due: Option<Due>,
}

#[derive(Default)]
struct Entries {
    owing: FxHashMap<StreamId, Owing>,
    due: BTreeMap<Due, StreamId>,
    posted: u64,
}

impl Entries {
    fn schedule(&mut self, stream: StreamId, at: Duration) {
        self.posted += 1;
        let due = (at, self.posted);
        if let Some(owing) = self.owing.get_mut(&stream) {
            if let Some(before) = owing.due.replace(due) {
                self.due.remove(&before);
            }
            self.due.insert(due, stream);
        }
    }

    fn forget(&mut self, stream: StreamId) {
        let Some(owing) = self.owing.get_mut(&stream) else { return };
        match owing.due {
            Some(due) => {
                self.due.remove(&due);
                self.owing.remove(&stream);
            }
            // In hand, and so kept: posted again meanwhile, it must not get into a second hand.
            None => owing.effects.clear(),
        }
    }
}

/// What all streams of this process's partitions owe.
pub struct Board {
    pub(super) effects: Arc<Queue>,
    pub(super) mail: Arc<Queue>,
}

/// What is owed of one sort.
pub struct Queue {
    environment: Arc<dyn Environment>,
    delay_max: Duration,
    entries: Mutex<Entries>,
    wake: Notify,
}

/// What to do after a stream's effects were carried out, or were not.
pub enum Next {
    /// It owes other effects now: go on with these.
    Effects(Vec<Effect>),
    /// It owes nothing, or will be tried again later.
    Rest,
}

impl Board {
    /// An empty board.
    pub fn new(environment: &Arc<dyn Environment>) -> Self {
        let queue = |delay_max| Arc::new(Queue::new(Arc::clone(environment), delay_max));
        Self { effects: queue(DELAY_MAX), mail: queue(MAIL_DELAY_MAX) }
    }

    /// Posts what streams of a partition owe now; an empty list takes a stream off the board.
    pub fn post(&self, partition: Partition, owed: Vec<(StreamId, Vec<Effect>)>) {
        let (mut letters, mut effects) = (Vec::new(), Vec::with_capacity(owed.len()));
        for (stream, owed) in owed {
            let (mail, rest): (Vec<_>, Vec<_>) = owed.into_iter().partition(Effect::is_mail);
            if stream.kind == StreamKind::Order {
                letters.push((stream, mail));
            }
            effects.push((stream, rest));
        }
        self.mail.post(partition, letters);
        self.effects.post(partition, effects);
        metrics::gauge!("orderlog_owing_streams").set(count(self.effects.len()));
        metrics::gauge!("orderlog_owed_letters").set(count(self.mail.len()));
    }

    /// Takes a partition that is no longer served off the board.
    pub fn retract(&self, partition: Partition) {
        self.mail.retract(partition);
        self.effects.retract(partition);
    }

    /// Streams that owe something, or did a moment ago and are still in hand; one that owes letters too counts twice.
    pub fn len(&self) -> usize {
        self.effects.len() + self.mail.len()
    }

    /// Whether nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn count(streams: usize) -> u32 {
    u32::try_from(streams).unwrap_or(u32::MAX)
}

impl Queue {
    fn new(environment: Arc<dyn Environment>, delay_max: Duration) -> Self {
        Self { environment, delay_max, entries: Mutex::default(), wake: Notify::new() }
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
                entries.forget(stream);
                continue;
            }
            match entries.owing.get_mut(&stream) {
                // Nothing new: it is under way, or waits for its next try.
                Some(owing) if owing.effects == effects => continue,
                Some(owing) => {
                    (owing.effects, owing.failures) = (effects, 0);
                    // Whoever carries out the old ones finds the new ones when done.
                    if owing.due.is_none() {
                        continue;
                    }
                }
                None => {
                    entries
                        .owing
                        .insert(stream, Owing { partition, effects, failures: 0, due: None });
                }
            }
            entries.schedule(stream, now);
            news = true;
        }
        drop(entries);
        if news {
            self.wake.notify_one();
        }
    }

    /// Something may have changed outside for what a stream owes: it is tried at once, if it waits for its next try.
    pub fn hurry(&self, stream: StreamId) {
        let now = self.environment.monotonic();
        let mut entries = self.entries();
        if entries.owing.get(&stream).is_some_and(|owing| owing.due.is_some()) {
            entries.schedule(stream, now);
            drop(entries);
            self.wake.notify_one();
        }
    }

    fn len(&self) -> usize {
        self.entries().owing.len()
    }

    fn retract(&self, partition: Partition) {
        let mut entries = self.entries();
        let gone = entries.owing.iter().filter(|(_, owing)| owing.partition == partition);
        let gone: Vec<StreamId> = gone.map(|(&stream, _)| stream).collect();
        for stream in gone {
            entries.forget(stream);
        }
    }

    /// The stream that is due first, with what it owes: from now on it is being carried out. Else how long until one is due.
    pub fn take_due(&self) -> Result<(StreamId, Vec<Effect>), Option<Duration>> {
        let now = self.environment.monotonic();
        let mut entries = self.entries();
        let Some((&due, &stream)) = entries.due.first_key_value() else { return Err(None) };
        if let Some(wait) = due.0.checked_sub(now).filter(|wait| !wait.is_zero()) {
            return Err(Some(wait));
        }
        entries.due.remove(&due);
        match entries.owing.get_mut(&stream) {
            Some(owing) => {
                owing.due = None;
                Ok((stream, owing.effects.clone()))
            }
            None => Err(Some(Duration::ZERO)),
        }
    }

    /// Resolves when something new is posted.
    pub async fn news(&self) {
        self.wake.notified().await;
    }

    /// `done` has been carried out, as far as it went. What the stream owes beyond that goes on at once; what it still owes is
    /// tried again later.
    pub fn carried_out(&self, stream: StreamId, done: &[Effect]) -> Next {
        let now = self.environment.monotonic();
        let mut entries = self.entries();
        let Some(owing) = entries.owing.get_mut(&stream) else { return Next::Rest };
        if owing.effects.is_empty() {
            entries.owing.remove(&stream);
            return Next::Rest;
        }
        if owing.effects != done {
            return Next::Effects(owing.effects.clone());
        }
        owing.failures += 1;
        let delay = DELAY.saturating_mul(1 << owing.failures.min(10)).min(self.delay_max);
        entries.schedule(stream, now + delay / 2 + self.environment.jitter(delay / 2));
        drop(entries);
        self.wake.notify_one();
        Next::Rest
    }
}
