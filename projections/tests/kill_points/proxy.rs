//! The proxy between a client and the server. It counts the client's messages and injects a fault
//! at a given message.

use crate::{
    faults::{Act, Fault, When},
    wire::{Message, Messages, Statements},
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream, tcp::OwnedWriteHalf},
    sync::{mpsc, watch},
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// How long to wait for an answer before a cut. The server may not answer before the client does
/// something else.
const ANSWER: Duration = Duration::from_millis(150);

/// A fault that was injected.
#[derive(Debug)]
pub struct Struck {
    /// The client.
    pub client: u64,
    pub act: Act,
    pub statement: &'static str,
    /// The server process of the connection.
    pub backend: Option<u32>,
    /// Cancelling this releases a message or client that is held.
    pub held: CancellationToken,
}

struct Armed {
    faults: Vec<Fault>,
    /// The number of messages so far, in total and by statement.
    sent: u32,
    of: BTreeMap<&'static str, u32>,
}

struct Shared {
    client: u64,
    server: Arc<AtomicU16>,
    armed: Mutex<Armed>,
    /// Cancelled when the client is dead: no message from or to it arrives any more.
    dead: CancellationToken,
    /// Whether the client is frozen.
    frozen: watch::Sender<bool>,
    struck: mpsc::UnboundedSender<Struck>,
}

/// The only connection path of a client to the server.
pub struct Proxy {
    shared: Arc<Shared>,
    port: u16,
    _accepting: AbortOnDropHandle<()>,
}

impl Proxy {
    pub async fn open(
        client: u64,
        server: Arc<AtomicU16>,
        faults: Vec<Fault>,
        struck: mpsc::UnboundedSender<Struck>,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            client,
            server,
            armed: Mutex::new(Armed { faults, sent: 0, of: BTreeMap::new() }),
            dead: CancellationToken::new(),
            frozen: watch::Sender::new(false),
            struck,
        });
        let accepting = AbortOnDropHandle::new(tokio::spawn(accept(listener, Arc::clone(&shared))));
        Self { shared, port, _accepting: accepting }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Closes all connections at once and for ever.
    pub fn kill(&self) {
        self.shared.dead.cancel();
    }

    pub fn is_dead(&self) -> bool {
        self.shared.dead.is_cancelled()
    }

    /// Waits until the client is dead.
    pub async fn dead(&self) {
        self.shared.dead.cancelled().await;
    }

    /// Lets a frozen client continue.
    pub fn thaw(&self) {
        self.shared.frozen.send_replace(false);
    }

    /// Injects no more faults.
    pub fn disarm(&self) {
        self.shared.armed.lock().unwrap().faults.clear();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        if !shared.dead.is_cancelled() {
            tokio::spawn(serve(client, Arc::clone(&shared)));
        }
    }
}

async fn serve(client: TcpStream, shared: Arc<Shared>) {
    let server = SocketAddr::from(([127, 0, 0, 1], shared.server.load(Ordering::Relaxed)));
    // If the server is down, the client's connection closes.
    let Ok(server) = TcpStream::connect(server).await else { return };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let connection = Connection {
        shared: Arc::clone(&shared),
        client_out,
        server_out,
        statements: Statements::default(),
        backend: None,
        asked: 1,
        answered: 0,
        last_words: None,
    };
    let pump = connection.pump(Messages::of_client(client_in), Messages::of_server(server_in));
    tokio::select! {
        biased;
        () = shared.dead.cancelled() => {}
        () = pump => {}
    }
}

struct Connection {
    shared: Arc<Shared>,
    client_out: OwnedWriteHalf,
    server_out: OwnedWriteHalf,
    statements: Statements,
    backend: Option<u32>,
    /// The number of requests that get an answer, including the start-up message, and the number of
    /// answers so far.
    asked: u64,
    answered: u64,
    /// Once set, the client gets no more messages, and the connection ends after the answer.
    last_words: Option<LastWords>,
}

struct LastWords {
    asked: u64,
    until: Instant,
    kill: bool,
}

/// `Some` if the connection continues.
type Goes = Option<()>;

impl Connection {
    async fn pump(mut self, mut client: Messages, mut server: Messages) {
        let mut frozen = self.shared.frozen.subscribe();
        while self.step(&mut client, &mut server, &mut frozen).await.is_some() {}
        if self.last_words.is_some_and(|words| words.kill) {
            self.shared.dead.cancel();
        }
    }

    async fn step(
        &mut self,
        client: &mut Messages,
        server: &mut Messages,
        frozen: &mut watch::Receiver<bool>,
    ) -> Goes {
        let until = self.last_words.as_ref().map(|words| words.until);
        tokio::select! {
            message = client.next() => {
                // When the client closes its connection, it is cut after all its messages have
                // arrived.
                let message = message?;
                frozen.wait_for(|frozen| !frozen).await.ok()?;
                self.sent(message).await
            }
            message = server.next() => {
                let message = message?;
                frozen.wait_for(|frozen| !frozen).await.ok()?;
                self.told(message).await
            }
            () = tokio::time::sleep_until(until.unwrap_or_else(Instant::now)),
                if until.is_some() => None,
        }
    }

    async fn told(&mut self, message: Message) -> Goes {
        self.backend = message.backend().or(self.backend);
        if message.kind == b'Z' {
            self.answered += 1;
        }
        match &self.last_words {
            // The server waits for rows of a `COPY`, so no other answer will come first.
            Some(words) if self.answered >= words.asked || message.kind == b'G' => None,
            Some(_) => Some(()),
            None => self.client_out.write_all(&message.bytes).await.ok(),
        }
    }

    async fn sent(&mut self, message: Message) -> Goes {
        let statement = self.statements.of(&message);
        let strikes = if self.last_words.is_none() { self.shared.strikes(statement) } else { None };
        let Some(act) = strikes else { return self.forward(&message).await };
        let held = CancellationToken::new();
        let (client, backend) = (self.shared.client, self.backend);
        let freezes = act == Act::Freeze;
        if freezes {
            self.shared.frozen.send_replace(true);
        }
        let struck = Struck { client, act, statement, backend, held: held.clone() };
        let kill = matches!(act, Act::KillBefore | Act::KillAfter);
        if act == Act::KillBefore {
            self.shared.dead.cancel();
        }
        self.shared.struck.send(struck).ok()?;
        match act {
            Act::CutBefore | Act::KillBefore => None,
            Act::CutWithin => {
                let half = message.bytes.len() / 2;
                self.server_out.write_all(&message.bytes[..half]).await.ok()?;
                None
            }
            Act::CutAfter | Act::KillAfter => {
                let asked = self.asked + 1;
                self.last_words = Some(LastWords { asked, until: Instant::now() + ANSWER, kill });
                self.forward(&message).await
            }
            Act::Hold | Act::Freeze | Act::Terminate | Act::Crash | Act::Restart => {
                held.cancelled().await;
                self.forward(&message).await
            }
        }
    }

    async fn forward(&mut self, message: &Message) -> Goes {
        if matches!(message.kind, b'Q' | b'S') {
            self.asked += 1;
        }
        let until = Instant::now() + crate::PATIENCE;
        timeout_at(until, self.server_out.write_all(&message.bytes)).await.ok()?.ok()
    }
}

impl Shared {
    /// Counts a message. Returns the fault to inject at it.
    fn strikes(&self, statement: &'static str) -> Option<Act> {
        let mut armed = self.armed.lock().unwrap();
        armed.sent += 1;
        let sent = armed.sent;
        let of = armed.of.entry(statement).or_default();
        *of += 1;
        let of = *of;
        let due = |fault: &Fault| match fault.when {
            When::Message(n) => sent >= n,
            When::Statement(name, n) => name == statement && of >= n,
        };
        let due = armed.faults.iter().position(due)?;
        Some(armed.faults.swap_remove(due).act)
    }
}
