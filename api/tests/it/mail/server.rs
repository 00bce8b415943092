//! A mail server for tests, on loopback, with moods.

use rcgen::{CertifiedKey, generate_simple_self_signed};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
};
use tokio::{
    io::{self, AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufStream},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{self, ServerConfig, pki_types::PrivateKeyDer},
};

/// How the server treats e-mails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Accepts them.
    Takes,
    /// Gives this answer to every recipient.
    Answers(&'static str),
    /// Gives this answer to every sender.
    AnswersSender(&'static str),
    /// Gives this answer to every text.
    AnswersText(&'static str),
    /// Accepts them with this answer.
    TakesWith(&'static str),
    /// Accepts them and does not know SMTPUTF8.
    TakesAscii,
    /// Accepts them but never answers.
    Holds,
    /// Does not even greet the client while it is in this mood.
    Stalls,
}

/// How a connection is encrypted.
#[derive(Clone, Default)]
pub enum Tls {
    /// No encryption.
    #[default]
    None,
    /// With STARTTLS.
    OnDemand(TlsAcceptor),
    /// From the first byte on.
    Wrapped(TlsAcceptor),
}

struct State {
    mood: watch::Sender<Mood>,
    letters: Mutex<Vec<String>>,
    /// The commands received.
    heard: Mutex<Vec<String>>,
    tls: Tls,
}

/// A running mail server. Dropping it closes all its connections.
pub struct Server {
    pub port: u16,
    state: Arc<State>,
    task: AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Makes a self-signed certificate for `localhost` and writes it to `path`. Returns an acceptor
/// that uses it.
pub fn self_made(path: &Path) -> TlsAcceptor {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(path, cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

impl Server {
    pub fn start(mood: Mood) -> Self {
        Self::start_at(0, mood, Tls::None)
    }

    pub fn start_at(port: u16, mood: Mood, tls: Tls) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(([127, 0, 0, 1], port).into()).unwrap();
        let listener = socket.listen(64).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            mood: watch::Sender::new(mood),
            letters: Mutex::default(),
            heard: Mutex::default(),
            tls,
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&state))).abort_handle();
        Self { port, state, task }
    }

    pub fn set(&self, mood: Mood) {
        self.state.mood.send_replace(mood);
    }

    /// The accepted e-mails, whether acknowledged or not.
    pub fn letters(&self) -> Vec<String> {
        self.state.letters.lock().unwrap().clone()
    }

    /// How often each Message-ID was accepted.
    pub fn message_ids(&self) -> BTreeMap<String, usize> {
        let mut ids = BTreeMap::new();
        for letter in self.letters() {
            let line = letter.lines().find(|line| line.starts_with("Message-ID: ")).unwrap();
            let id = line.trim_start_matches("Message-ID: <").trim_end_matches('>');
            *ids.entry(id.to_owned()).or_default() += 1;
        }
        ids
    }

    /// Whether it has received a command that begins with `verb`.
    pub fn heard(&self, verb: &str) -> bool {
        self.times(verb) > 0
    }

    /// How often it has received such a command.
    pub fn times(&self, verb: &str) -> usize {
        let heard = self.state.heard.lock().unwrap();
        heard.iter().filter(|line| line.starts_with(verb)).count()
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    // Dropping this task drops the set, which closes every connection.
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(talk(stream, Arc::clone(&state)));
    }
}

trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

async fn talk(stream: TcpStream, state: Arc<State>) -> io::Result<()> {
    let mut wire: Box<dyn Wire> = Box::new(stream);
    if let Tls::Wrapped(acceptor) = &state.tls {
        wire = Box::new(acceptor.accept(wire).await?);
    }
    let mut wire = BufStream::new(wire);
    let mood = || *state.mood.borrow();
    let _ = state.mood.subscribe().wait_for(|mood| *mood != Mood::Stalls).await;
    say(&mut wire, "220 test").await?;
    loop {
        let Some(line) = hear(&mut wire).await? else { return Ok(()) };
        state.heard.lock().unwrap().push(line.clone());
        match line.split([' ', ':']).next().unwrap_or_default() {
            "EHLO" => {
                let offer = matches!(state.tls, Tls::OnDemand(_));
                let offer = if offer { "250-STARTTLS\r\n" } else { "" };
                let utf8 = if mood() == Mood::TakesAscii { "HELP" } else { "SMTPUTF8" };
                say(&mut wire, &format!("250-test\r\n{offer}250-8BITMIME\r\n250 {utf8}")).await?;
            }
            "STARTTLS" => {
                let Tls::OnDemand(acceptor) = &state.tls else { return Ok(()) };
                say(&mut wire, "220 go ahead").await?;
                let plain = wire.into_inner();
                wire = BufStream::new(Box::new(acceptor.accept(plain).await?));
            }
            "MAIL" => match mood() {
                Mood::AnswersSender(answer) => say(&mut wire, answer).await?,
                _ => say(&mut wire, "250 ok").await?,
            },
            "RCPT" => match mood() {
                Mood::Answers(answer) => say(&mut wire, answer).await?,
                _ => say(&mut wire, "250 ok").await?,
            },
            "DATA" => {
                say(&mut wire, "354 go on").await?;
                let mut letter = String::new();
                while let Some(line) = hear(&mut wire).await?.filter(|line| line != ".") {
                    letter.push_str(&line);
                    letter.push('\n');
                }
                if let Mood::AnswersText(answer) = mood() {
                    say(&mut wire, answer).await?;
                    continue;
                }
                state.letters.lock().unwrap().push(letter);
                if mood() == Mood::Holds {
                    std::future::pending::<()>().await;
                }
                let taken = mood();
                say(
                    &mut wire,
                    if let Mood::TakesWith(answer) = taken { answer } else { "250 taken" },
                )
                .await?;
            }
            "QUIT" => return say(&mut wire, "221 bye").await,
            _ => say(&mut wire, "250 ok").await?,
        }
    }
}

async fn say(wire: &mut BufStream<Box<dyn Wire>>, line: &str) -> io::Result<()> {
    wire.write_all(format!("{line}\r\n").as_bytes()).await?;
    wire.flush().await
}

async fn hear(wire: &mut BufStream<Box<dyn Wire>>) -> io::Result<Option<String>> {
    let mut line = String::new();
    let read = wire.read_line(&mut line).await?;
    Ok((read > 0).then(|| line.trim_end().to_owned()))
}
