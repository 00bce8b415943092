//! Serves HTTP/1.1 and HTTP/2: `axum::serve` with what it lacks, a time-out for headers, a bound on
//! connections and an end that does not wait for ever.

use axum::{Router, body::Body, extract::ConnectInfo};
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 10_000;

/// How long a client may take to send a request's head, and the first byte of the first one.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(15);

/// An HTTP/2 client that does not answer a ping for this long is gone.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Requests of one HTTP/2 connection at once.
const MAX_STREAMS: u32 = 250;

/// The largest head of a request.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Rest after the system had no socket to give.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// The running server.
pub struct Server {
    stop: CancellationToken,
    cut: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves `router` on `listener`.
    pub fn start(listener: TcpListener, router: Router) -> Self {
        let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
        let task = tokio::spawn(accept(listener, router, stop.clone(), cut.clone()));
        Self { stop, cut, task }
    }

    /// Resolves when the server ended by itself, which it must not.
    pub async fn died(&mut self) {
        let _ = (&mut self.task).await;
    }

    /// Stops accepting and waits for the requests under way; those that take longer than `within`
    /// are cut off.
    pub async fn stop(mut self, within: Duration) {
        self.stop.cancel();
        if timeout(within, &mut self.task).await.is_err() {
            tracing::warn!("requests were still under way at the deadline, cutting them off");
            self.cut.cancel();
            let _ = self.task.await;
        }
    }
}

async fn accept(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
    cut: CancellationToken,
) {
    let graceful = GracefulShutdown::new();
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let next = async || {
        // The semaphore is never closed.
        let permit = Arc::clone(&permits).acquire_owned().await.ok()?;
        Some((listener.accept().await, permit))
    };
    while let Some(Some((accepted, permit))) = stop.run_until_cancelled(next()).await {
        match accepted {
            Ok((stream, peer)) => {
                let connection =
                    connection(stream, peer, router.clone(), graceful.watcher(), permit);
                tokio::spawn(cut.clone().run_until_cancelled_owned(connection));
            }
            // The connection's own trouble is over with it; without sockets, waiting is all there
            // is.
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    drop(listener);
    graceful.shutdown().await;
}

/// One connection, to its end.
async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    watcher: Watcher,
    _permit: OwnedSemaphorePermit,
) {
    // Answers are small: waiting to fill a packet only delays them.
    let _ = stream.set_nodelay(true);
    let spoke = Arc::new(AtomicBool::new(false));
    let service = {
        let spoke = Arc::clone(&spoke);
        service_fn(move |request: Request<Incoming>| {
            spoke.store(true, Ordering::Relaxed);
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            router.clone().oneshot(request)
        })
    };
    let builder = builder();
    let served =
        watcher.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned());
    // Before it knows the protocol, the server of hyper-util waits without bound.
    let silent = async {
        sleep(HEADER_READ_TIMEOUT).await;
        if spoke.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        result = served => if let Err(error) = result {
            tracing::debug!(%peer, error, "a connection ended badly");
        },
        () = silent => tracing::debug!(%peer, "a connection said nothing in time"),
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_TIMEOUT)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(64 * 1024);
    builder
}
