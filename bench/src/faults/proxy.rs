//! A TCP proxy that simulates network faults: it delays connections, blocks one direction or both,
//! and closes them.
//!
//! Blocked data is not lost. Like a packet that TCP retransmits it arrives when the fault ends,
//! even if its sender has closed the connection. So a request can reach the broker long after its
//! client has given up.

use anyhow::{Context, Result};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// The number of pieces buffered in one direction of a connection; then the sender must wait.
const WAITING: usize = 1_024;

/// The longest valid request of a Kafka client, in bytes.
const LONGEST_FRAME: usize = 64 << 20;

/// API keys of requests that only transactional producers send, on their connection to the
/// coordinator.
const INIT_PRODUCER_ID: i16 = 22;
const ADD_PARTITIONS: i16 = 24;
const END_TRANSACTION: i16 = 26;

/// The state of one direction of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    /// Data arrives at once.
    #[default]
    Open,
    /// Data arrives this much later.
    Slow(Duration),
    /// No data arrives until the fault ends.
    Blocked,
}

/// How the proxy disturbs its connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disturbance {
    /// From the client to the server.
    pub up: Flow,
    /// From the server to the client.
    pub down: Flow,
    /// Whether only connections of transactional producers to their coordinator are disturbed.
    pub coordinator_only: bool,
    /// How much later each request to end a transaction arrives.
    pub end_transaction: Duration,
}

#[derive(Clone)]
struct Connection {
    ended: CancellationToken,
    /// Whether this is a producer's connection to its coordinator.
    coordinates: Arc<AtomicBool>,
}

struct Shared {
    target: watch::Sender<SocketAddr>,
    disturbance: watch::Sender<Disturbance>,
    connections: Mutex<Vec<Connection>>,
    kafka: bool,
    late: AtomicU64,
}

/// A proxy. It ends when dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    ended: CancellationToken,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

impl Proxy {
    /// Starts a proxy in front of `target`. `kafka` says that the clients use Kafka's protocol.
    ///
    /// # Errors
    /// When the proxy cannot listen.
    pub async fn start(target: SocketAddr, kafka: bool) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("the proxy cannot listen")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target: watch::Sender::new(target),
            disturbance: watch::Sender::new(Disturbance::default()),
            connections: Mutex::default(),
            kafka,
            late: AtomicU64::new(0),
        });
        let ended = CancellationToken::new();
        let serving = serve(listener, Arc::clone(&shared), ended.clone());
        tokio::spawn(ended.clone().run_until_cancelled_owned(serving));
        Ok(Self { address, shared, ended })
    }

    /// The address for clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends new connections to `target` from now on.
    pub fn point_to(&self, target: SocketAddr) {
        self.shared.target.send_replace(target);
    }

    /// Sets the disturbance from now on.
    pub fn set(&self, disturbance: Disturbance) {
        self.shared.disturbance.send_replace(disturbance);
    }

    /// Closes all connections, or only those to coordinators.
    pub fn close(&self, coordinator_only: bool) {
        for connection in self.shared.connections().iter() {
            if !coordinator_only || connection.coordinates.load(Relaxed) {
                connection.ended.cancel();
            }
        }
    }

    /// The number of delayed requests to end a transaction.
    pub fn late(&self) -> u64 {
        self.shared.late.load(Relaxed)
    }
}

impl Shared {
    fn connections(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>, ended: CancellationToken) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let connection = Connection { ended: ended.child_token(), coordinates: Arc::default() };
        {
            let mut connections = shared.connections();
            connections.retain(|connection| !connection.ended.is_cancelled());
            connections.push(connection.clone());
        }
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let token = connection.ended.clone();
            token.run_until_cancelled(connect(client, &shared, &connection)).await;
            connection.ended.cancel();
        });
    }
}

async fn connect(client: TcpStream, shared: &Shared, connection: &Connection) {
    let target = *shared.target.borrow();
    // If the server does not listen, close the client's connection.
    let Ok(server) = TcpStream::connect(target).await else { return };
    if client.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
        return;
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (up, waiting_up) = mpsc::channel(WAITING);
    let (down, waiting_down) = mpsc::channel(WAITING);
    let read_up = async {
        if shared.kafka {
            take_frames(from_client, up, shared, connection).await;
        } else {
            take(from_client, up).await;
        }
    };
    let upwards = deliver(waiting_up, to_server, shared, connection, |disturbance| disturbance.up);
    let downwards =
        deliver(waiting_down, to_client, shared, connection, |disturbance| disturbance.down);
    tokio::join!(read_up, upwards, take(from_server, down), downwards);
}

/// Data with the time at which it was sent and the earliest time at which it may arrive.
struct Piece {
    bytes: Vec<u8>,
    sent: Instant,
    not_before: Instant,
}

impl Piece {
    fn new(bytes: Vec<u8>, late: Duration) -> Self {
        let sent = Instant::now();
        Self { bytes, sent, not_before: sent + late }
    }
}

async fn take(mut from: impl AsyncRead + Unpin, to: mpsc::Sender<Piece>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if to.send(Piece::new(buffer[..read].to_vec(), Duration::ZERO)).await.is_err() {
            return;
        }
    }
}

/// Takes one request at a time: four bytes of length, then the API key.
async fn take_frames(
    mut from: impl AsyncRead + Unpin,
    to: mpsc::Sender<Piece>,
    shared: &Shared,
    connection: &Connection,
) {
    loop {
        let Ok(length) = from.read_u32().await else { return };
        let size = length as usize;
        if !(2..=LONGEST_FRAME).contains(&size) {
            return;
        }
        let mut bytes = vec![0; 4 + size];
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        if from.read_exact(&mut bytes[4..]).await.is_err() {
            return;
        }
        let key = i16::from_be_bytes([bytes[4], bytes[5]]);
        if [INIT_PRODUCER_ID, ADD_PARTITIONS, END_TRANSACTION].contains(&key) {
            connection.coordinates.store(true, Relaxed);
        }
        let mut late = Duration::ZERO;
        if key == END_TRANSACTION {
            late = shared.disturbance.borrow().end_transaction;
            shared.late.fetch_add(u64::from(!late.is_zero()), Relaxed);
        }
        if to.send(Piece::new(bytes, late)).await.is_err() {
            return;
        }
    }
}

async fn deliver(
    mut waiting: mpsc::Receiver<Piece>,
    mut to: impl AsyncWrite + Unpin,
    shared: &Shared,
    connection: &Connection,
    flow: impl Fn(&Disturbance) -> Flow,
) {
    let mut disturbance = shared.disturbance.subscribe();
    while let Some(piece) = waiting.recv().await {
        sleep_until(piece.not_before).await;
        loop {
            let now = *disturbance.borrow_and_update();
            let concerned = !now.coordinator_only || connection.coordinates.load(Relaxed);
            match flow(&now) {
                Flow::Slow(late) if concerned => {
                    sleep_until(piece.sent + late).await;
                    break;
                }
                Flow::Blocked if concerned => {
                    if disturbance.changed().await.is_err() {
                        return;
                    }
                }
                _ => break,
            }
        }
        if to.write_all(&piece.bytes).await.is_err() {
            return;
        }
    }
    // The sender has closed its side: close this side too, after all data is delivered.
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends all data back and reports it.
    async fn echo() -> (SocketAddr, mpsc::Receiver<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, hears) = mpsc::channel(100);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let tell = tell.clone();
                tokio::spawn(async move {
                    let mut buffer = [0; 1024];
                    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                        let _ = tell.send(buffer[..read].to_vec()).await;
                        let _ = stream.write_all(&buffer[..read]).await;
                    }
                });
            }
        });
        (address, hears)
    }

    fn request(key: i16) -> Vec<u8> {
        let mut bytes = 6u32.to_be_bytes().to_vec();
        bytes.extend(key.to_be_bytes());
        bytes.extend(*b"body");
        bytes
    }

    #[tokio::test]
    async fn blocked_data_arrives_after_the_fault_although_its_sender_is_gone() {
        let (server, mut hears) = echo().await;
        let proxy = Proxy::start(server, false).await.unwrap();
        proxy.set(Disturbance { up: Flow::Blocked, ..Disturbance::default() });
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        client.write_all(b"late").await.unwrap();
        drop(client);
        tokio::task::yield_now().await;
        assert!(hears.try_recv().is_err());
        proxy.set(Disturbance::default());
        assert_eq!(hears.recv().await.unwrap(), b"late");
    }

    #[tokio::test]
    async fn a_cut_of_the_coordinator_leaves_other_connections_alone() {
        let (server, mut hears) = echo().await;
        let proxy = Proxy::start(server, true).await.unwrap();
        let blocked =
            Disturbance { up: Flow::Blocked, coordinator_only: true, ..Disturbance::default() };
        proxy.set(blocked);
        let mut coordinator = TcpStream::connect(proxy.address()).await.unwrap();
        coordinator.write_all(&request(END_TRANSACTION)).await.unwrap();
        let mut other = TcpStream::connect(proxy.address()).await.unwrap();
        other.write_all(&request(0)).await.unwrap();
        assert_eq!(hears.recv().await.unwrap(), request(0));
        proxy.set(Disturbance::default());
        assert_eq!(hears.recv().await.unwrap(), request(END_TRANSACTION));
    }

    #[tokio::test]
    async fn closing_ends_open_connections_and_no_later_ones() {
        let (server, mut hears) = echo().await;
        let proxy = Proxy::start(server, false).await.unwrap();
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        client.write_all(b"a").await.unwrap();
        assert_eq!(hears.recv().await.unwrap(), b"a");
        proxy.close(false);
        let mut rest = Vec::new();
        // The echo may still arrive. Then the connection ends, with or without an error.
        let _ = client.read_to_end(&mut rest).await;
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        client.write_all(b"b").await.unwrap();
        assert_eq!(hears.recv().await.unwrap(), b"b");
    }

    #[tokio::test]
    async fn the_end_of_a_transaction_can_be_delayed() {
        let (server, mut hears) = echo().await;
        let proxy = Proxy::start(server, true).await.unwrap();
        let late = Duration::from_millis(50);
        proxy.set(Disturbance { end_transaction: late, ..Disturbance::default() });
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        let began = Instant::now();
        client.write_all(&request(END_TRANSACTION)).await.unwrap();
        assert_eq!(hears.recv().await.unwrap(), request(END_TRANSACTION));
        assert!(began.elapsed() >= late && proxy.late() == 1);
    }
}
