//! Tracks the open connections, so that idle ones can be ended to make room for others.

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// All open connections.
#[derive(Clone)]
pub(super) struct Connections(Arc<Inner>);

struct Inner {
    open: Mutex<HashMap<u64, Arc<Activity>>>,
    next: AtomicU64,
    began: Instant,
}

/// The activity of a connection.
struct Activity {
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

    /// Tracks a connection until the result is dropped.
    pub fn enter(&self) -> Entered {
        let activity = Arc::new(Activity {
            requests: AtomicUsize::new(0),
            idle_since: AtomicU64::new(self.0.now()),
            cut: CancellationToken::new(),
        });
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.0.open().insert(id, Arc::clone(&activity));
        Entered { id, activity, all: Arc::clone(&self.0) }
    }

    /// Ends the connection that has been idle for the longest time. `false` if none is idle.
    pub fn end_idlest(&self) -> bool {
        let open = self.0.open();
        let idle = open
            .values()
            .filter(|one| one.requests.load(Ordering::Acquire) == 0 && !one.cut.is_cancelled());
        let idlest = idle.min_by_key(|one| one.idle_since.load(Ordering::Relaxed));
        idlest.is_some_and(|one| {
            one.cut.cancel();
            true
        })
    }
}

impl Inner {
    fn open(&self) -> MutexGuard<'_, HashMap<u64, Arc<Activity>>> {
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

    /// Counts a request until the result is dropped.
    pub fn begin(&self) -> Busy {
        self.activity.requests.fetch_add(1, Ordering::AcqRel);
        Busy { activity: Arc::clone(&self.activity), all: Arc::clone(&self.all) }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.all.open().remove(&self.id);
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

/// The body of an answer. The connection counts as busy until it is sent.
pub(super) struct Answering {
    pub body: Body,
    pub _busy: Busy,
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_connection_that_is_idle_for_the_longest_time_makes_room() {
        let connections = Connections::new();
        let [first, second, third] = [(); 3].map(|()| connections.enter());
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
        assert!(connections.0.open().is_empty());
    }
}
