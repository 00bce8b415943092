//! Events as they happen, for those who listen.
//!
//! One hub a process, whatever the number of listeners: while anybody listens to an order of a
//! partition, one task follows that partition of the log ([`follow`]) and wakes only those who
//! listen to the order concerned. Nobody polls.
//!
//! History comes from the read model and the rest from the log. There is no gap in between, because
//! a listener enters here first, waits until the place is known from which the log is followed, and
//! then until the read model has seen all that the log holds; and nothing comes twice, because
//! versions are contiguous.

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
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Listeners of one process, if its connections suffice.
const LISTENERS: usize = 8_000;
/// Listeners of one customer.
const LISTENERS_OF_CUSTOMER: usize = 20;
/// Events that wait for a listener who does not read, before the listener is dropped.
const WAITING: usize = 32;

/// How listening works.
#[derive(Clone, Copy, Debug)]
pub struct LiveSettings {
    /// A comment is sent after this time without an event.
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

/// Who listens to the streams of a partition.
#[derive(Default)]
struct Listened {
    /// Whether a task follows the partition.
    followed: bool,
    /// Done once that task knows where it begins: what was read from the history before may end
    /// short of there.
    begun: CancellationToken,
    streams: HashMap<StreamId, Vec<Waiting>>,
}

/// A listener, from the side of the log.
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

    /// Ends all streams, for good. Their clients come back elsewhere, or later.
    pub fn stop(&self) {
        self.0.stop.cancel();
    }

    /// Enters a listener to a stream: nothing that is read from the log from now on is missed.
    ///
    /// # Errors
    /// `unavailable` when there are too many, or the server stops; `rate-limited` when this
    /// customer has too many.
    fn enter(&self, stream: StreamId, principal: &Principal) -> Result<Seat, Problem> {
        let hub = &self.0;
        if hub.stop.is_cancelled() {
            return Err(Problem::unavailable("the server stops"));
        }
        let permit = Arc::clone(&hub.seats).try_acquire_owned();
        let permit = permit.map_err(|_| Problem::unavailable("too many listen").retry_after(30))?;
        let place = Place::take(hub, principal)?;
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
        Ok(Seat { stream, partition, number, events, begun, place, _permit: permit })
    }
}

impl Hub {
    fn listened(&self, partition: Partition) -> MutexGuard<'_, Listened> {
        // Never called with a partition of another log.
        self.partitions[partition.0 as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn customers(&self) -> MutexGuard<'_, HashMap<Uuid, usize>> {
        self.customers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A listener, from its own side. Leaves when dropped.
struct Seat {
    stream: StreamId,
    partition: Partition,
    number: u64,
    events: mpsc::Receiver<Arc<Frame>>,
    begun: CancellationToken,
    place: Place,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Seat {
    fn drop(&mut self) {
        metrics::gauge!("orderlog_live_listeners").decrement(1.0);
        let mut listened = self.place.hub.listened(self.partition);
        if let Some(waiting) = listened.streams.get_mut(&self.stream) {
            waiting.retain(|one| one.number != self.number);
            if waiting.is_empty() {
                listened.streams.remove(&self.stream);
            }
        }
    }
}

/// One of the listeners that a customer may have.
struct Place {
    hub: Arc<Hub>,
    customer: Option<Uuid>,
}

impl Place {
    fn take(hub: &Arc<Hub>, principal: &Principal) -> Result<Self, Problem> {
        let customer = principal.customer_id();
        if let Some(customer) = customer {
            let mut customers = hub.customers();
            let taken = customers.entry(customer).or_default();
            if *taken >= LISTENERS_OF_CUSTOMER {
                let detail = "a customer may listen to 20 orders at once";
                let problem = Problem::new(crate::problem::Kind::RateLimited, detail);
                return Err(problem.retry_after(30));
            }
            *taken += 1;
        }
        Ok(Self { hub: Arc::clone(hub), customer })
    }
}

impl Drop for Place {
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
