//! Tracks the open connections, so that idle ones can be ended to make room for others.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// All open connections.
#[derive(Clone)]
pub(super) struct Connections(Arc<Inner>);

struct Inner {
    open: Mutex<Open>,
    next: AtomicU64,
    began: Instant,
}

#[derive(Default)]
struct Open {
    connections: HashMap<u64, Arc<Activity>>,
    /// The number of connections from each address that is counted.
    addresses: HashMap<IpAddr, usize>,
}

/// The activity of a connection.
struct Activity {
    /// The address that the connection counts for; `None` for one without a limit.
    address: Option<IpAddr>,
    /// Requests under way, including answers that are not fully sent.
    requests: AtomicUsize,
    /// When the last request ended, in milliseconds since the server started.
    idle_since: AtomicU64,
    cut: CancellationToken,
}

impl Connections {
    pub fn new() -> Self {
        let (open, next) = (Mutex::default(), AtomicU64::new(0));
        Self(Arc::new(Inner { open, next, began: Instant::now() }))
    }

    /// Tracks a connection until the result is dropped. An address that has `most` connections
    /// already loses the one that has been idle for the longest time; `None` if none of them is
    /// idle.
    pub fn enter(&self, address: Option<IpAddr>, most: usize) -> Option<Entered> {
        let mut open = self.0.open();
        if let Some(address) = address {
            let taken = open.addresses.get(&address).copied().unwrap_or(0);
            if taken >= most && !open.end_idlest(|one| one.address == Some(address)) {
                return None;
            }
            *open.addresses.entry(address).or_default() += 1;
        }
        let activity = Arc::new(Activity {
            address,
            requests: AtomicUsize::new(0),
            idle_since: AtomicU64::new(self.0.now()),
            cut: CancellationToken::new(),
        });
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        open.connections.insert(id, Arc::clone(&activity));
        Some(Entered { id, activity, all: Arc::clone(&self.0) })
    }

    /// Ends the connection that has been idle for the longest time. `false` if none is idle.
    pub fn end_idlest(&self) -> bool {
        self.0.open().end_idlest(|_| true)
    }
}

impl Open {
    fn end_idlest(&self, of: impl Fn(&Activity) -> bool) -> bool {
        let idle = self.connections.values().filter(|one| {
            one.requests.load(Ordering::Acquire) == 0 && !one.cut.is_cancelled() && of(one)
        });
        let idlest = idle.min_by_key(|one| one.idle_since.load(Ordering::Relaxed));
        idlest.is_some_and(|one| {
            one.cut.cancel();
            true
        })
    }
}

impl Inner {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// An open connection.
pub(super) struct Entered {
    id: u64,
    activity: Arc<Activity>,
    all: Arc<Inner>,
}

impl Entered {
    /// Cancelled when the connection must end to make room.
    pub fn cut(&self) -> CancellationToken {
        self.activity.cut.clone()
    }

    /// Whether no request is under way.
    pub fn is_idle(&self) -> bool {
        self.activity.requests.load(Ordering::Acquire) == 0
    }

    /// Counts a request until the result is dropped.
    pub fn begin(&self) -> Busy {
        self.activity.requests.fetch_add(1, Ordering::AcqRel);
        Busy { activity: Arc::clone(&self.activity), all: Arc::clone(&self.all) }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut open = self.all.open();
        open.connections.remove(&self.id);
        let Some(address) = self.activity.address else { return };
        if let Some(taken) = open.addresses.get_mut(&address) {
            *taken -= 1;
            if *taken == 0 {
                open.addresses.remove(&address);
            }
        }
    }
}

/// A request under way.
pub(super) struct Busy {
    activity: Arc<Activity>,
    all: Arc<Inner>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        // The time is set before the count: otherwise the connection could be taken for one that
        // has been idle for long.
        self.activity.idle_since.store(self.all.now(), Ordering::Relaxed);
        self.activity.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_connection_that_is_idle_for_the_longest_time_makes_room() {
        let connections = Connections::new();
        let [first, second, third] = [(); 3].map(|()| connections.enter(None, 0).unwrap());
        for (one, since) in [(&first, 5), (&second, 3), (&third, 1)] {
            one.activity.idle_since.store(since, Ordering::Relaxed);
        }
        let busy = third.begin();
        assert!(connections.end_idlest());
        assert!(second.cut().is_cancelled() && !first.cut().is_cancelled());
        drop(second);
        assert!(connections.end_idlest());
        assert!(first.cut().is_cancelled());
        assert!(!connections.end_idlest(), "the last one has a request");
        drop(busy);
        assert!(connections.end_idlest() && third.cut().is_cancelled());
        drop((first, third));
        assert!(connections.0.open().connections.is_empty());
    }

    #[tokio::test]
    async fn an_address_makes_room_for_itself() {
        let connections = Connections::new();
        let [ann, bob] = [1, 2].map(|last| Some(IpAddr::from([203, 0, 113, last])));
        let enter = |address| connections.enter(address, 2);
        let (first, second) = (enter(ann).unwrap(), enter(ann).unwrap());
        let (_request, other) = (first.begin(), enter(bob).unwrap());
        let third = enter(ann).unwrap();
        assert!(second.cut().is_cancelled(), "the idle one of the same address");
        assert!(!first.cut().is_cancelled() && !other.cut().is_cancelled());
        drop(second);
        let _request = third.begin();
        assert!(enter(ann).is_none(), "both have a request");
        assert!(enter(None).is_some());
        drop((first, third, other));
        assert!(connections.0.open().addresses.is_empty());
    }
}
