//! Serves HTTP/1.1 and HTTP/2. Adds to `axum::serve` time limits for request heads, for idle
//! connections and for answers that are not taken, limits on connections that end idle ones to make
//! room, and a stop with a deadline.

mod answering;
mod connections;
mod limits;
mod socket;
mod unread;

pub use answering::Occupied;
pub use limits::Limits;

use crate::client::{self, Proxies};
use answering::{Answering, Streams};
use axum::{
    Router,
    extract::ConnectInfo,
    http::{HeaderValue, header},
};
use connections::{Connections, Entered};
use hyper::{Request, Version, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
};
use socket::{Heads, Socket};
use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_io_timeout::TimeoutWriter;
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
    /// Serves `router` on `listener`. The limits per address do not apply to `proxies`, which have
    /// connections of many clients.
    pub fn start(listener: TcpListener, router: Router, limits: Limits, proxies: Proxies) -> Self {
        let [stop, cut, ended] = [(); 3].map(|()| CancellationToken::new());
        let accepting = accept(listener, router, limits, proxies, stop.clone(), cut.clone());
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
    proxies: Proxies,
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
                let address = Some(peer.ip().to_canonical()).filter(|peer| !proxies.knows(*peer));
                let address = address.map(client::counted);
                let entered = connections.enter(address, limits.connections_per_address);
                let Some(entered) = entered else {
                    tracing::debug!(%peer, "refused a connection, its address has too many");
                    continue;
                };
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
        let (cut, entered) = (entered.cut(), Arc::new(entered));
        let heads = Arc::new(Heads::new(Arc::clone(&entered)));
        let watch = Arc::clone(&heads);
        let service = service_fn(move |request: Request<Incoming>| {
            let is_h2 = request.version() >= Version::HTTP_2;
            watch.ended(is_h2);
            let busy = entered.begin();
            let (mut head, body) = request.into_parts();
            head.extensions.insert(ConnectInfo(peer));
            let (body, unread) = unread::lend(body, &head.headers);
            let answered = router.clone().oneshot(Request::from_parts(head, body));
            let linger = Arc::clone(&watch);
            async move {
                let mut response = answered.await?;
                if let Some(unread) = unread.filter(|_| !is_h2)
                    && !unread.discard().await
                {
                    linger.linger();
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                Ok::<_, Infallible>(Answering::of(response, busy))
            }
        });
        let mut writer = TimeoutWriter::new(Socket::new(stream, Arc::clone(&heads)));
        writer.set_timeout(Some(limits.taken));
        let builder = builder(limits);
        let connection = builder.serve_connection(TokioIo::new(Box::pin(writer)), service);
        tokio::select! {
            result = watcher.watch(connection.into_owned()) => if let Err(error) = result {
                tracing::debug!(%peer, error, "a connection failed");
            },
            () = heads.late(limits.head) => {
                tracing::debug!(%peer, "a connection sent no complete request in time");
            }
            () = cut.cancelled() => tracing::debug!(%peer, "ended an idle connection to make room"),
        }
    }
}

fn builder(limits: Limits) -> auto::Builder<Streams> {
    let mut builder = auto::Builder::new(Streams { time_limit: limits.taken });
    builder
        .http1()
        .timer(TokioTimer::new())
        // Begins when the connection is idle; `Heads` has the limit for the head alone.
        .header_read_timeout(limits.idle)
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
        let server = Server::start(listener, router, limits, Proxies::new(Vec::new()));
        (server, address)
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
        let limits = Limits { head: Duration::from_millis(50), ..Limits::default() };
        let (server, address) = start(Router::new(), limits).await;
        for words in ["", "P", "PRI * HTTP/2.0", "GET / HTTP/1.1\r\nHost:"] {
            let heard = hear(say(address, words).await).await;
            assert!(heard.is_empty() || heard.starts_with("HTTP/1.1 408"), "{words:?}: {heard}");
        }
        server.stop(PATIENCE).await;
    }

    /// Proxies keep a connection between two requests for longer than a head may take.
    #[tokio::test]
    async fn a_connection_may_be_idle_for_longer_than_a_head_may_take() {
        let router = Router::new().route("/", get(async || "word"));
        let (head, idle) = (Duration::from_millis(50), Duration::from_millis(600));
        let (server, address) = start(router, Limits { head, idle, ..Limits::default() }).await;
        let request = "GET / HTTP/1.1\r\nHost: here\r\n\r\n";
        let mut stream = say(address, request).await;
        let mut answer = [0; 1024];
        for _ in 0..3 {
            assert!(stream.read(&mut answer).await.unwrap() > 0);
            sleep(head * 4).await;
            stream.write_all(request.as_bytes()).await.unwrap();
        }
        assert!(stream.read(&mut answer).await.unwrap() > 0);
        stream.write_all(b"GET / HT").await.unwrap();
        let began = tokio::time::Instant::now();
        hear(stream).await;
        assert!(began.elapsed() < idle, "a head that has begun is not idle");
        hear(say(address, request).await).await;
        server.stop(PATIENCE).await;
    }

    /// A body that never ends.
    fn endless() -> Router {
        static PIECE: [u8; 65_536] = [b'a'; 65_536];
        let pieces = || futures::stream::repeat(Ok::<_, Infallible>(&PIECE[..]));
        let body = move || axum::body::Body::from_stream(pieces());
        Router::new().route("/", get(async move || body()))
    }

    #[tokio::test]
    async fn an_answer_that_nobody_takes_ends() {
        let limits = Limits { taken: Duration::from_millis(100), ..Limits::default() };
        let (server, address) = start(endless(), limits).await;
        // The system's buffers are filled first, which takes a while on a busy machine.
        let mut ended = false;
        for seconds in [1, 4, 16] {
            let mut deaf = say(address, "GET / HTTP/1.1\r\nHost: here\r\n\r\n").await;
            sleep(Duration::from_secs(seconds)).await;
            let mut sink = tokio::io::sink();
            let rest = tokio::io::copy(&mut deaf, &mut sink);
            ended |= timeout(Duration::from_secs(5), rest).await.is_ok();
            if ended {
                break;
            }
        }
        assert!(ended, "the answer goes on");
        server.stop(Duration::from_secs(1)).await;
    }

    /// In HTTP/2 the connection of a client that takes nothing looks well.
    #[tokio::test]
    async fn a_stream_whose_window_stays_closed_is_reset() {
        const RST_STREAM: u8 = 3;
        let limits = Limits { taken: Duration::from_millis(100), ..Limits::default() };
        let (server, address) = start(endless(), limits).await;
        let mut deaf = say(address, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        // SETTINGS: INITIAL_WINDOW_SIZE is 0.
        deaf.write_all(&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0]).await.unwrap();
        // HEADERS: GET http://here/
        deaf.write_all(&[0, 0, 9, 1, 5, 0, 0, 0, 1, 0x82, 0x84, 0x86, 0x41, 4]).await.unwrap();
        deaf.write_all(b"here").await.unwrap();
        let reset = async {
            loop {
                let mut head = [0; 9];
                deaf.read_exact(&mut head).await.unwrap();
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                deaf.read_exact(&mut vec![0; length as usize]).await.unwrap();
                if head[3] == RST_STREAM {
                    break;
                }
            }
        };
        timeout(PATIENCE, reset).await.expect("the stream is reset");
        drop(deaf);
        server.stop(PATIENCE).await;
    }

    #[tokio::test]
    async fn an_address_has_its_share_of_the_connections() {
        let (router, entered, leave) = waiting();
        let limits = Limits { connections_per_address: 1, ..Limits::default() };
        let (server, address) = start(router, limits).await;
        let request = "GET /word HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n";
        let first = say(address, request).await;
        entered.notified().await;
        assert_eq!(hear(say(address, request).await).await, "", "the first is not idle");
        leave.notify_one();
        assert!(hear(first).await.ends_with("word"));
        server.stop(PATIENCE).await;
    }

    /// A client that sends its body in a packet of its own can go on behind a refusal, or is told that
    /// it cannot. Either way it can read the refusal.
    #[tokio::test]
    async fn a_refusal_can_be_read_though_the_body_was_not() {
        let router = Router::new().route("/", axum::routing::post(async || "word"));
        let (server, address) = start(router, Limits::default()).await;
        let post = |length: usize, more: &str| {
            format!("POST / HTTP/1.1\r\nHost: here\r\nContent-Length: {length}\r\n{more}\r\n")
        };
        let mut stream = say(address, &post(4, "")).await;
        sleep(Duration::from_millis(50)).await;
        stream.write_all(b"body").await.unwrap();
        stream.write_all(post(4, "Connection: close\r\n").as_bytes()).await.unwrap();
        sleep(Duration::from_millis(50)).await;
        stream.write_all(b"body").await.unwrap();
        let heard = hear(stream).await;
        assert_eq!(heard.matches("HTTP/1.1 200").count(), 2, "{heard}");

        // Larger than what the server throws away: it closes, and takes more before it does.
        let mut stream = say(address, &post(8 << 20, "")).await;
        stream.write_all(&vec![b'a'; 512 * 1024]).await.unwrap();
        let heard = hear(stream).await;
        assert!(heard.starts_with("HTTP/1.1 200") && heard.ends_with("word"), "{heard}");
        assert!(heard.contains("connection: close"), "{heard}");
        let stream = say(address, &post(4, "Expect: 100-continue\r\n")).await;
        let heard = hear(stream).await;
        assert!(
            heard.starts_with("HTTP/1.1 200") && heard.contains("connection: close"),
            "{heard}"
        );
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
        let limits = Limits { connections: 3, head: PATIENCE * 100, ..Limits::default() };
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
