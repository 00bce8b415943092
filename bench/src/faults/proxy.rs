//! A TCP proxy that does to connections what networks do: delays, holds back one direction or both, closes.
//!
//! What is held back is not lost: like a packet that TCP sends again it arrives when the cut is over, also when its
//! sender has given up and gone. So a request can reach the broker long after its answer stopped to matter.

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

/// Pieces that wait in one direction of a connection; then its sender has to wait.
const WAITING: usize = 1_024;

/// A request of a Kafka client is never longer, or it is none.
const LONGEST_FRAME: usize = 64 << 20;

/// API keys that only a transaction's producer sends, on its connection to the coordinator.
const INIT_PRODUCER_ID: i16 = 22;
const ADD_PARTITIONS: i16 = 24;
const END_TRANSACTION: i16 = 26;

/// How a direction of a connection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// At once.
    #[default]
    Open,
    /// Everything arrives this much later.
    Slow(Duration),
    /// Nothing arrives until this is over.
    Held,
}

/// What the proxy does to its connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// From the client to the server.
    pub up: Way,
    /// And back.
    pub down: Way,
    /// Only to connections of transactions' producers to their coordinator.
    pub coordinator_only: bool,
    /// Every request to end a transaction arrives this much later.
    pub end_transaction: Duration,
}

#[derive(Clone)]
struct Connection {
    ended: CancellationToken,
    /// A producer's connection to its coordinator.
    coordinates: Arc<AtomicBool>,
}

struct Shared {
    target: watch::Sender<SocketAddr>,
    weather: watch::Sender<Weather>,
    connections: Mutex<Vec<Connection>>,
    kafka: bool,
    late: AtomicU64,
}

/// A proxy; ends when dropped.
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
    /// A proxy in front of `target`; `kafka` says that the clients speak Kafka's protocol.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(target: SocketAddr, kafka: bool) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("the proxy cannot listen")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target: watch::Sender::new(target),
            weather: watch::Sender::new(Weather::default()),
            connections: Mutex::default(),
            kafka,
            late: AtomicU64::new(0),
        });
        let ended = CancellationToken::new();
        let serving = serve(listener, Arc::clone(&shared), ended.clone());
        tokio::spawn(ended.clone().run_until_cancelled_owned(serving));
        Ok(Self { address, shared, ended })
    }

    /// Where clients come.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// New connections go there from now on.
    pub fn point_to(&self, target: SocketAddr) {
        self.shared.target.send_replace(target);
    }

    /// What it does from now on.
    pub fn set(&self, weather: Weather) {
        self.shared.weather.send_replace(weather);
    }

    /// Closes the connections there are, or those of coordinators only.
    pub fn close(&self, coordinator_only: bool) {
        for connection in self.shared.connections().iter() {
            if !coordinator_only || connection.coordinates.load(Relaxed) {
                connection.ended.cancel();
            }
        }
    }

    /// Requests to end a transaction that were made late.
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
    // A server that is not there: the client's connection closes.
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
    let upwards = deliver(waiting_up, to_server, shared, connection, |weather| weather.up);
    let downwards = deliver(waiting_down, to_client, shared, connection, |weather| weather.down);
    tokio::join!(read_up, upwards, take(from_server, down), downwards);
}

/// What was sent, and when it may arrive at the earliest.
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

/// Request by request: four bytes of length, then the API key.
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
            late = shared.weather.borrow().end_transaction;
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
    way: impl Fn(&Weather) -> Way,
) {
    let mut weather = shared.weather.subscribe();
    while let Some(piece) = waiting.recv().await {
        sleep_until(piece.not_before).await;
        loop {
            let now = *weather.borrow_and_update();
            let concerned = !now.coordinator_only || connection.coordinates.load(Relaxed);
            match way(&now) {
                Way::Slow(late) if concerned => {
                    sleep_until(piece.sent + late).await;
                    break;
                }
                Way::Held if concerned => {
                    if weather.changed().await.is_err() {
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
    // The other side has ended: this one is told, behind all that was on its way.
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends back all it gets, and tells what that was.
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
    async fn what_is_held_arrives_when_the_cut_is_over_though_its_sender_has_gone() {
        let (server, mut hears) = echo().await;
        let proxy = Proxy::start(server, false).await.unwrap();
        proxy.set(Weather { up: Way::Held, ..Weather::default() });
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        client.write_all(b"late").await.unwrap();
        drop(client);
        tokio::task::yield_now().await;
        assert!(hears.try_recv().is_err());
        proxy.set(Weather::default());
        assert_eq!(hears.recv().await.unwrap(), b"late");
    }

    #[tokio::test]
    async fn a_cut_of_the_coordinator_leaves_other_connections_alone() {
        let (server, mut hears) = echo().await;
        let proxy = Proxy::start(server, true).await.unwrap();
        let held = Weather { up: Way::Held, coordinator_only: true, ..Weather::default() };
        proxy.set(held);
        let mut coordinator = TcpStream::connect(proxy.address()).await.unwrap();
        coordinator.write_all(&request(END_TRANSACTION)).await.unwrap();
        let mut other = TcpStream::connect(proxy.address()).await.unwrap();
        other.write_all(&request(0)).await.unwrap();
        assert_eq!(hears.recv().await.unwrap(), request(0));
        proxy.set(Weather::default());
        assert_eq!(hears.recv().await.unwrap(), request(END_TRANSACTION));
    }

    #[tokio::test]
    async fn closing_ends_what_is_open_and_nothing_else() {
        let (server, mut hears) = echo().await;
        let proxy = Proxy::start(server, false).await.unwrap();
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        client.write_all(b"a").await.unwrap();
        assert_eq!(hears.recv().await.unwrap(), b"a");
        proxy.close(false);
        let mut rest = Vec::new();
        // The echo may still come; then the end, however the system calls it.
        let _ = client.read_to_end(&mut rest).await;
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        client.write_all(b"b").await.unwrap();
        assert_eq!(hears.recv().await.unwrap(), b"b");
    }

    #[tokio::test]
    async fn an_end_of_a_transaction_can_be_made_late() {
        let (server, mut hears) = echo().await;
        let proxy = Proxy::start(server, true).await.unwrap();
        let late = Duration::from_millis(50);
        proxy.set(Weather { end_transaction: late, ..Weather::default() });
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        let began = Instant::now();
        client.write_all(&request(END_TRANSACTION)).await.unwrap();
        assert_eq!(hears.recv().await.unwrap(), request(END_TRANSACTION));
        assert!(began.elapsed() >= late && proxy.late() == 1);
    }
}
