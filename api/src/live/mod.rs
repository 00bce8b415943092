//! Streams new events to listeners.
//!
//! A process has one hub. While a partition has listeners, one task follows that partition of the
//! log ([`follow`]) and wakes only the listeners of the stream that an event belongs to. Nothing
//! polls.
//!
//! Past events come from the read model of the history, later ones from the log. No event is missed
//! in between: a listener enters the hub first, waits until the task knows the position it follows
//! the log from, and then until the read model has caught up with the end of the log. No event is
//! sent twice, because a listener sends the next version only.

mod follow;
mod listener;

pub use listener::{Frame, Listener};

use crate::{auth::Principal, problem::Problem};
use events::{Environment, Partition, StreamId, log::EventLog, partitioner::partition_of};
use projections::ReadModels;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

/// The most listeners of one process, if it has enough connections.
const LISTENERS: usize = 8_000;
/// The most listeners of one customer.
const LISTENERS_OF_CUSTOMER: usize = 20;
/// The most events that wait for a slow listener before it is dropped.
const WAITING: usize = 32;

/// The settings of listening.
#[derive(Clone, Copy, Debug)]
pub struct LiveSettings {
    /// A comment is sent as a heartbeat after this time without an event.
    pub heartbeat: Duration,
    /// The most listeners.
    pub listeners: usize,
}

impl Default for LiveSettings {
    fn default() -> Self {
        Self { heartbeat: Duration::from_secs(15), listeners: LISTENERS }
    }
}

/// The hub. Clones share it.
#[derive(Clone)]
pub struct Live(Arc<Hub>);

struct Hub {
    log: Arc<dyn EventLog>,
    reads: ReadModels,
    environment: Arc<dyn Environment>,
    settings: LiveSettings,
    seats: Arc<Semaphore>,
    customers: Mutex<HashMap<Uuid, usize>>,
    partitions: Vec<Mutex<Listened>>,
    next: AtomicU64,
    stop: CancellationToken,
}

/// The listeners of one partition.
#[derive(Default)]
struct Listened {
    /// Whether a task follows the partition.
    followed: bool,
    /// Cancelled once that task knows the position it begins at. History that was read earlier may
    /// end before that position.
    begun: CancellationToken,
    streams: HashMap<StreamId, Vec<Waiting>>,
}

/// A listener as the following task knows it.
struct Waiting {
    number: u64,
    events: mpsc::Sender<Arc<Frame>>,
}

impl Live {
    /// A hub over a log and the read models that are fed from it.
    pub fn new(
        log: Arc<dyn EventLog>,
        reads: ReadModels,
        environment: Arc<dyn Environment>,
        settings: LiveSettings,
    ) -> Self {
        let partitions = (0..log.partitions()).map(|_| Mutex::default()).collect();
        let seats = Arc::new(Semaphore::new(settings.listeners));
        let (customers, next, stop) =
            (Mutex::default(), AtomicU64::new(0), CancellationToken::new());
        Self(Arc::new(Hub {
            log,
            reads,
            environment,
            settings,
            seats,
            customers,
            partitions,
            next,
            stop,
        }))
    }

    /// Ends all streams for good. Their clients reconnect to another node, or later.
    pub fn stop(&self) {
        self.0.stop.cancel();
    }

    /// Adds a listener to a stream, for as long as `time`. It misses no event that is read from the
    /// log from now on.
    ///
    /// # Errors
    /// `unavailable` if there are too many listeners or the server is stopping; `rate-limited` if
    /// this customer has too many.
    fn enter(
        &self,
        stream: StreamId,
        principal: &Principal,
        time: Duration,
    ) -> Result<Seat, Problem> {
        let hub = &self.0;
        if hub.stop.is_cancelled() {
            return Err(Problem::unavailable("the server is stopping"));
        }
        let permit = Arc::clone(&hub.seats).try_acquire_owned();
        let permit =
            permit.map_err(|_| Problem::unavailable("too many listeners").retry_after(30))?;
        let share = Share::take(hub, principal)?;
        let partition = partition_of(stream, hub.log.partitions());
        let number = hub.next.fetch_add(1, Ordering::Relaxed);
        let (send, events) = mpsc::channel(WAITING);
        let mut listened = hub.listened(partition);
        listened.streams.entry(stream).or_default().push(Waiting { number, events: send });
        if !listened.followed {
            listened.followed = true;
            listened.begun = CancellationToken::new();
            tokio::spawn(follow::follow(Arc::clone(hub), partition, listened.begun.clone()));
        }
        let begun = listened.begun.clone();
        drop(listened);
        metrics::gauge!("orderlog_live_listeners").increment(1.0);
        let place = Place { share, stream, partition, number, _permit: permit };
        let place = Arc::new(Mutex::new(Some(place)));
        // The stream of a client that takes nothing is not polled, so it cannot end itself.
        let (over, seat) = (CancellationToken::new(), Arc::clone(&place));
        let times_out = over.clone();
        tokio::spawn(over.clone().run_until_cancelled_owned(async move {
            tokio::time::sleep(time).await;
            seat.lock().unwrap_or_else(PoisonError::into_inner).take();
            times_out.cancel();
        }));
        let left = over.clone().drop_guard();
        Ok(Seat { stream, partition, events, begun, over, _place: place, _left: left })
    }
}

impl Hub {
    fn listened(&self, partition: Partition) -> MutexGuard<'_, Listened> {
        // The partition is always one of this log, so the index is in range.
        self.partitions[partition.0 as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn customers(&self) -> MutexGuard<'_, HashMap<Uuid, usize>> {
        self.customers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The seat of a listener. It loses its place in the hub when dropped, or when its time is over.
struct Seat {
    stream: StreamId,
    partition: Partition,
    events: mpsc::Receiver<Arc<Frame>>,
    begun: CancellationToken,
    /// Cancelled when the time of the listener is over.
    over: CancellationToken,
    _place: Arc<Mutex<Option<Place>>>,
    _left: DropGuard,
}

/// A listener's place in the hub, which ends its events when dropped.
struct Place {
    share: Share,
    stream: StreamId,
    partition: Partition,
    number: u64,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics::gauge!("orderlog_live_listeners").decrement(1.0);
        let mut listened = self.share.hub.listened(self.partition);
        if let Some(waiting) = listened.streams.get_mut(&self.stream) {
            waiting.retain(|one| one.number != self.number);
            if waiting.is_empty() {
                listened.streams.remove(&self.stream);
            }
        }
    }
}

/// One of the listeners that a customer may have. Given back when dropped.
struct Share {
    hub: Arc<Hub>,
    customer: Option<Uuid>,
}

impl Share {
    fn take(hub: &Arc<Hub>, principal: &Principal) -> Result<Self, Problem> {
        let customer = principal.customer_id();
        if let Some(customer) = customer {
            let mut customers = hub.customers();
            let taken = customers.entry(customer).or_default();
            if *taken >= LISTENERS_OF_CUSTOMER {
                let detail = "a customer can listen to at most 20 orders at once";
                let problem = Problem::new(crate::problem::Kind::RateLimited, detail);
                return Err(problem.retry_after(30));
            }
            *taken += 1;
        }
        Ok(Self { hub: Arc::clone(hub), customer })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Some(customer) = self.customer else { return };
        let mut customers = self.hub.customers();
        if let Some(taken) = customers.get_mut(&customer) {
            *taken -= 1;
            if *taken == 0 {
                customers.remove(&customer);
            }
        }
    }
}
