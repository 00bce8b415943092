//! Serves HTTP/1.1 and HTTP/2. Adds to `axum::serve` a time-out for request heads, a limit on
//! connections that ends idle ones to make room, and a stop with a deadline.

mod connections;
mod limits;

pub use limits::Limits;

use axum::{Router, body::Body, extract::ConnectInfo};
use connections::{Answering, Connections, Entered};
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
};
use std::{
    convert::Infallible,
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
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// An HTTP/2 client that does not answer a ping within this time is disconnected.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// The most requests under way on one HTTP/2 connection.
const MAX_STREAMS: u32 = 250;

/// The largest head of a request in HTTP/1.1.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// The largest head of a request in HTTP/2, decompressed.
const MAX_HEADER_LIST_BYTES: u32 = 64 * 1024;

/// The pause after the system had no socket left.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// The pause between two searches for an idle connection while all connections are taken.
const IDLE_POLL: Duration = Duration::from_millis(20);

/// The running server.
pub struct Server {
    stop: CancellationToken,
    cut: CancellationToken,
    ended: CancellationToken,
}

impl Server {
    /// Serves `router` on `listener`.
    pub fn start(listener: TcpListener, router: Router, limits: Limits) -> Self {
        let [stop, cut, ended] = [(); 3].map(|()| CancellationToken::new());
        let accepting = accept(listener, router, limits, stop.clone(), cut.clone());
        let alive = ended.clone().drop_guard();
        tokio::spawn(async move {
            accepting.await;
            drop(alive);
        });
        Self { stop, cut, ended }
    }

    /// Resolves when the server has ended. Without [`stop`](Self::stop) that is a failure.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Stops accepting connections and waits for the requests under way. Cuts off requests that
    /// take longer than `within`.
    pub async fn stop(self, within: Duration) {
        self.stop.cancel();
        if timeout(within, self.ended.cancelled()).await.is_err() {
            tracing::warn!("requests are still under way at the deadline, cutting them off");
            self.cut.cancel();
            self.ended.cancelled().await;
        }
    }
}

async fn accept(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
    cut: CancellationToken,
) {
    let graceful = GracefulShutdown::new();
    let permits = Arc::new(Semaphore::new(limits.connections));
    let connections = Connections::new();
    let next = async || {
        let accepted = listener.accept().await;
        Some((accepted, room(&permits, &connections).await?))
    };
    while let Some(Some((accepted, permit))) = stop.run_until_cancelled(next()).await {
        match accepted {
            Ok((stream, peer)) => {
                let entered = connections.enter();
                let served = Connection { stream, peer, limits, entered, router: router.clone() };
                let watcher = graceful.watcher();
                let connection = async move {
                    served.serve(watcher).await;
                    drop(permit);
                };
                tokio::spawn(cut.clone().run_until_cancelled_owned(connection));
            }
            // An error of one connection needs no handling. If the system has no sockets left, all
            // that helps is to wait.
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    drop(listener);
    graceful.shutdown().await;
}

/// A permit for one more connection. Ends idle connections while there is none. The semaphore is
/// never closed, so this never returns `None`.
async fn room(permits: &Arc<Semaphore>, connections: &Connections) -> Option<OwnedSemaphorePermit> {
    if let Ok(permit) = Arc::clone(permits).try_acquire_owned() {
        return Some(permit);
    }
    loop {
        connections.end_idlest();
        let permit = Arc::clone(permits).acquire_owned();
        if let Ok(permit) = timeout(IDLE_POLL, permit).await {
            return permit.ok();
        }
    }
}

struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    limits: Limits,
    entered: Entered,
    router: Router,
}

impl Connection {
    /// Serves the connection to its end.
    async fn serve(self, watcher: Watcher) {
        let Self { stream, peer, limits, entered, router } = self;
        // Answers are small. Nagle's algorithm would only delay them.
        let _ = stream.set_nodelay(true);
        let spoke = Arc::new(AtomicBool::new(false));
        let speaking = Arc::clone(&spoke);
        let cut = entered.cut();
        let service = service_fn(move |request: Request<Incoming>| {
            speaking.store(true, Ordering::Relaxed);
            let busy = entered.begin();
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            let answered = router.clone().oneshot(request);
            async move {
                let response = answered.await?;
                Ok::<_, Infallible>(response.map(|body| Answering { body, _busy: busy }))
            }
        });
        let builder = builder(limits.header_read_timeout);
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        // hyper-util has no time-out until it knows whether the client speaks HTTP/1.1 or HTTP/2.
        let silent = async {
            sleep(limits.header_read_timeout).await;
            if spoke.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            result = watcher.watch(connection) => if let Err(error) = result {
                tracing::debug!(%peer, error, "a connection failed");
            },
            () = silent => tracing::debug!(%peer, "a connection sent no request in time"),
            () = cut.cancelled() => tracing::debug!(%peer, "ended an idle connection to make room"),
        }
    }
}

fn builder(header_read_timeout: Duration) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(header_read_timeout)
        .max_buf_size(MAX_HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_TIMEOUT)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_LIST_BYTES);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{extract::Path, routing::get};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::Notify,
    };

    /// Longer than any test takes.
    const PATIENCE: Duration = Duration::from_secs(30);

    async fn start(router: Router, limits: Limits) -> (Server, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (Server::start(listener, router, limits), address)
    }

    async fn say(address: SocketAddr, words: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(words.as_bytes()).await.unwrap();
        stream
    }

    /// Everything that the server sends until it closes the connection.
    async fn hear(mut stream: TcpStream) -> String {
        let mut heard = Vec::new();
        let read = timeout(PATIENCE, stream.read_to_end(&mut heard)).await;
        // A reset closes the connection too.
        let _ = read.expect("the server closes the connection");
        String::from_utf8(heard).unwrap()
    }

    #[tokio::test]
    async fn a_client_that_does_not_finish_its_head_is_dropped() {
        let limits = Limits { header_read_timeout: Duration::from_millis(50), ..Limits::default() };
        let (server, address) = start(Router::new(), limits).await;
        for words in ["", "P", "PRI * HTTP/2.0", "GET / HTTP/1.1\r\nHost:"] {
            let heard = hear(say(address, words).await).await;
            assert!(heard.is_empty() || heard.starts_with("HTTP/1.1 408"), "{words:?}: {heard}");
        }
        server.stop(PATIENCE).await;
    }

    #[tokio::test]
    async fn a_head_that_is_too_large_is_refused() {
        let router = Router::new().route("/", get(async || "word"));
        let (server, address) = start(router, Limits::default()).await;
        let request = |headers: String| format!("GET / HTTP/1.1\r\nHost: here\r\n{headers}\r\n");
        let long = request(format!("X-Long: {}\r\n", "a".repeat(MAX_HEAD_BYTES)));
        let many = request("X-Many: a\r\n".repeat(200));
        for words in [long, many] {
            // Because the server does not read the rest, the connection ends with a reset, which
            // may overtake the answer.
            let heard = hear(say(address, &words).await).await;
            assert!(heard.is_empty() || heard.starts_with("HTTP/1.1 431"), "{heard}");
        }
        let fine =
            request(format!("X-Fine: a\r\nConnection: close\r\n{}", "X-Few: a\r\n".repeat(50)));
        assert!(hear(say(address, &fine).await).await.ends_with("word"));
        server.stop(PATIENCE).await;
    }

    /// A router whose only route waits for a notification before it answers.
    fn waiting() -> (Router, Arc<Notify>, Arc<Notify>) {
        let (entered, leave) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (enter, left) = (Arc::clone(&entered), Arc::clone(&leave));
        let handler = move |Path(word): Path<String>| async move {
            enter.notify_one();
            left.notified().await;
            word
        };
        (Router::new().route("/{word}", get(handler)), entered, leave)
    }

    #[tokio::test]
    async fn a_soft_stop_lets_the_request_under_way_finish() {
        let (router, entered, leave) = waiting();
        let (server, address) = start(router, Limits::default()).await;
        let stream = say(address, "GET /word HTTP/1.1\r\nHost: here\r\n\r\n").await;
        entered.notified().await;
        let stopping = tokio::spawn(server.stop(PATIENCE));
        leave.notify_one();
        let heard = hear(stream).await;
        assert!(heard.starts_with("HTTP/1.1 200") && heard.ends_with("word"), "{heard}");
        stopping.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err(), "the port is closed");
    }

    #[tokio::test]
    async fn the_deadline_cuts_off_requests_still_under_way() {
        let (router, entered, _leave) = waiting();
        let (server, address) = start(router, Limits::default()).await;
        let stream = say(address, "GET /word HTTP/1.1\r\nHost: here\r\n\r\n").await;
        entered.notified().await;
        timeout(PATIENCE, server.stop(Duration::from_millis(10))).await.unwrap();
        assert_eq!(hear(stream).await, "");
    }

    #[tokio::test]
    async fn idle_connections_make_room_for_requests() {
        let router = Router::new().route("/", get(async || "word"));
        let limits = Limits { connections: 3, header_read_timeout: PATIENCE * 100 };
        let (server, address) = start(router, limits).await;
        let mut idle = Vec::new();
        for _ in 0..10 {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let request = "GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n";
        for _ in 0..10 {
            assert!(hear(say(address, request).await).await.ends_with("word"));
        }
        server.stop(PATIENCE).await;
        for held in idle {
            assert_eq!(hear(held).await, "");
        }
    }

    /// A client that disconnects, in the middle of its request or before its answer, frees its
    /// place.
    #[tokio::test]
    async fn a_client_that_vanishes_leaves_nothing_behind() {
        let (router, entered, leave) = waiting();
        let (server, address) = start(router, Limits { connections: 1, ..Limits::default() }).await;
        for _ in 0..5 {
            drop(say(address, "GET /word HTTP/1.1\r\nHo").await);
            drop(
                say(address, "POST /word HTTP/1.1\r\nHost: here\r\nContent-Length: 9\r\n\r\nwo")
                    .await,
            );
            let waiting = say(address, "GET /word HTTP/1.1\r\nHost: here\r\n\r\n").await;
            entered.notified().await;
            drop(waiting);
        }
        let request = "GET /word HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n";
        let heard = say(address, request).await;
        entered.notified().await;
        leave.notify_one();
        assert!(hear(heard).await.ends_with("word"));
        server.stop(PATIENCE).await;
    }

    #[tokio::test]
    async fn more_connections_than_allowed_wait() {
        let (router, entered, leave) = waiting();
        let (server, address) = start(router, Limits { connections: 1, ..Limits::default() }).await;
        let request = "GET /word HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n";
        let first = say(address, request).await;
        entered.notified().await;
        let second = say(address, request).await;
        leave.notify_one();
        assert!(hear(first).await.ends_with("word"));
        entered.notified().await;
        leave.notify_one();
        assert!(hear(second).await.ends_with("word"));
        server.stop(PATIENCE).await;
    }
}
