//! The socket of a connection, and the time limit for the head of a request in HTTP/1.1.
//!
//! hyper has one limit from the end of an answer to the end of the next head. That must be long,
//! because connections may be idle, and a head that has begun must not take as long.

use super::connections::Entered;
use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    sync::Notify,
    time::{sleep, timeout},
};

/// How long a socket takes bytes that nobody reads, when it is closed with a body unread.
const LINGER: Duration = Duration::from_secs(2);

/// Whether a head is being received on a connection. An odd number says that one is; each next head
/// has another number. The first begins with the connection.
pub(super) struct Heads {
    number: AtomicU64,
    began: Notify,
    /// Whether the socket lingers when it is closed.
    lingers: AtomicBool,
    entered: Arc<Entered>,
}

/// The number once heads are no longer watched: HTTP/2 reads many other things.
const UNWATCHED: u64 = u64::MAX - 1;

impl Heads {
    pub fn new(entered: Arc<Entered>) -> Self {
        Self {
            number: AtomicU64::new(1),
            began: Notify::new(),
            lingers: AtomicBool::new(false),
            entered,
        }
    }

    /// Notes that bytes were received.
    fn received(&self) {
        let number = self.number.load(Ordering::Relaxed);
        if number.is_multiple_of(2) && number != UNWATCHED && self.entered.is_idle() {
            self.number.store(number + 1, Ordering::Relaxed);
            self.began.notify_one();
        }
    }

    /// Notes that a head is complete. `for_good` ends the watch.
    pub fn ended(&self, for_good: bool) {
        let number = self.number.load(Ordering::Relaxed);
        let next = if for_good { UNWATCHED } else { number + number % 2 };
        self.number.store(next, Ordering::Relaxed);
    }

    /// Notes that the connection ends with a body unread.
    pub fn linger(&self) {
        self.lingers.store(true, Ordering::Relaxed);
    }

    /// Resolves when a head has not been complete within `limit`.
    pub async fn late(&self, limit: Duration) {
        loop {
            let number = self.number.load(Ordering::Relaxed);
            if number % 2 == 1 {
                sleep(limit).await;
                if self.number.load(Ordering::Relaxed) == number {
                    return;
                }
            } else {
                self.began.notified().await;
            }
        }
    }
}

/// The socket of a connection. Notes when bytes are received. When it is closed with a body unread,
/// it takes more of the body first: to close a socket with unread bytes makes the client's system
/// throw away the answer.
pub(super) struct Socket {
    stream: Option<TcpStream>,
    heads: Arc<Heads>,
}

impl Socket {
    pub fn new(stream: TcpStream, heads: Arc<Heads>) -> Self {
        Self { stream: Some(stream), heads }
    }

    fn poll<T>(
        self: Pin<&mut Self>,
        operation: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match &mut self.get_mut().stream {
            Some(stream) => operation(Pin::new(stream)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if !self.heads.lingers.load(Ordering::Relaxed) {
            return;
        }
        if let Some(mut stream) = self.stream.take() {
            let drained = async move {
                let _ = stream.shutdown().await;
                tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
            };
            tokio::spawn(timeout(LINGER, drained));
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (heads, before) = (Arc::clone(&self.heads), buffer.filled().len());
        let read = self.poll(|stream| stream.poll_read(context, buffer));
        if buffer.filled().len() > before {
            heads.received();
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll(|stream| stream.poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_shutdown(context))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll(|stream| stream.poll_write_vectored(context, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }
}
