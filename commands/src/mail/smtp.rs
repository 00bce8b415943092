//! Sends letters to a mail server.

use super::{
    Letter, MailError, Mailer, Sender,
    files::Folder,
    session::{Session, Wire, of_server},
};
use async_trait::async_trait;
use mail_send::{Credentials, Error, SmtpClient, smtp::AssertReply};
use percent_encoding::percent_decode_str;
use rustls::{ClientConfig, crypto::ring, pki_types::ServerName};
use rustls_platform_verifier::BuilderVerifierExt;
use smtp_proto::{AUTH_LOGIN, AUTH_PLAIN, EXT_START_TLS};
use std::{
    fmt,
    path::Path,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;
use url::Url;
use uuid::Uuid;

/// How long the server may take to accept a connection, and to answer.
const TIMEOUT: Duration = Duration::from_mins(1);

/// How long a connection that is not in use is kept for the next letter.
const IDLE: Duration = Duration::from_secs(30);

/// The URL of a mail server: `smtps://user:password@host[:port]`, or `smtp://` with `?tls=required`
/// or `?tls=opportunistic` for STARTTLS.
#[derive(Clone, PartialEq, Eq)]
pub struct SmtpUrl(Arc<str>);

/// The text is not the URL of a mail server. The error does not repeat it: it may contain a
/// password.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an SMTP URL must be smtps://[user:password@]host[:port], or smtp://... with ?tls=required \
     for STARTTLS"
)]
pub struct SmtpUrlError;

impl FromStr for SmtpUrl {
    type Err = SmtpUrlError;

    fn from_str(text: &str) -> Result<Self, SmtpUrlError> {
        Server::of(text).map(|_| Self(text.into())).ok_or(SmtpUrlError)
    }
}

impl fmt::Debug for SmtpUrl {
    /// Leaves out the user and the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or_default();
        write!(f, "{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, host)| host))
    }
}

/// The ports of SMTP, of submission with STARTTLS and of submission over TLS (RFC 5321, 6409, 8314).
const SMTP: u16 = 25;
const SUBMISSION: u16 = 587;
const SUBMISSIONS: u16 = 465;

/// How the connection is encrypted.
enum Tls {
    /// It is not.
    None,
    /// With STARTTLS, if the server offers that.
    Opportunistic(TlsConnector),
    /// With STARTTLS.
    Required(TlsConnector),
    /// From the first byte on.
    Wrapper(TlsConnector),
}

/// Where the mail server is, and how to talk to it.
struct Server {
    host: String,
    port: u16,
    tls: Tls,
    credentials: Option<Credentials<String>>,
    /// The name that the program greets the server with.
    name: String,
}

impl Server {
    /// The server of a URL. The path, if there is one, is the name to greet with.
    fn of(url: &str) -> Option<Self> {
        let url = Url::parse(url).ok()?;
        // An address of IPv6 stands in brackets.
        let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
        if host.is_empty() {
            return None;
        }
        let connector = || connector(&host);
        // What is misspelt must not be taken for no wish: the password would go in clear.
        let wishes: Vec<_> = url.query_pairs().collect();
        let wanted = match wishes.as_slice() {
            [] => None,
            [(name, value)] if name == "tls" => Some(&**value),
            _ => return None,
        };
        let (tls, port) = match (url.scheme(), wanted) {
            ("smtp", None) => (Tls::None, SMTP),
            ("smtp", Some("required")) => (Tls::Required(connector()?), SUBMISSION),
            ("smtp", Some("opportunistic")) => (Tls::Opportunistic(connector()?), SUBMISSION),
            ("smtps", None) => (Tls::Wrapper(connector()?), SUBMISSIONS),
            _ => return None,
        };
        let plain = |text: &str| Some(percent_decode_str(text).decode_utf8().ok()?.into_owned());
        let credentials = match (url.username(), url.password()) {
            ("", None) => None,
            ("", Some(_)) | (_, None) => return None,
            (name, Some(password)) => Some(Credentials::new(plain(name)?, plain(password)?)),
        };
        let name = match url.path().trim_matches('/') {
            "" => gethostname::gethostname().to_string_lossy().into_owned(),
            name => name.to_owned(),
        };
        Some(Self { port: url.port().unwrap_or(port), host, tls, credentials, name })
    }

    /// Connects, encrypts the connection and signs in.
    async fn connect(&self) -> Result<Session, Error> {
        let Self { host, port, tls, credentials, name } = self;
        let stream = TcpStream::connect((host.as_str(), *port)).await?;
        stream.set_nodelay(true)?;
        let mut client = SmtpClient { stream, timeout: TIMEOUT };
        let mut client = match tls {
            Tls::Wrapper(connector) => {
                let mut client = client.into_tls(connector, host).await?;
                client.read().await?.assert_positive_completion()?;
                boxed(client)
            }
            Tls::None => {
                client.read().await?.assert_positive_completion()?;
                boxed(client)
            }
            Tls::Opportunistic(connector) | Tls::Required(connector) => {
                client.read().await?.assert_positive_completion()?;
                if client.ehlo(name).await?.has_capability(EXT_START_TLS) {
                    boxed(client.start_tls(connector, host).await?)
                } else if matches!(tls, Tls::Required(_)) {
                    return Err(Error::MissingStartTls);
                } else {
                    boxed(client)
                }
            }
        };
        let mut offers = client.ehlo(name).await?;
        if let Some(credentials) = credentials {
            offers.auth_mechanisms &= AUTH_PLAIN | AUTH_LOGIN;
            client.authenticate(credentials, &offers).await?;
        }
        Ok(Session::new(client, offers.capabilities))
    }
}

fn boxed(client: SmtpClient<impl Wire + 'static>) -> SmtpClient<Box<dyn Wire>> {
    SmtpClient { stream: Box::new(client.stream), timeout: client.timeout }
}

/// What encrypts connections to `host`, whose certificate must be good for the system. `None` if the
/// name cannot be in a certificate.
fn connector(host: &str) -> Option<TlsConnector> {
    ServerName::try_from(host).ok()?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().ok()?;
    let config = config.with_platform_verifier().ok()?.with_no_client_auth();
    Some(TlsConnector::from(Arc::new(config)))
}

/// Why no connection came about. The server's words are not passed on.
fn not_connected(error: Error) -> MailError {
    match error {
        Error::UnexpectedReply(reply) | Error::AuthenticationFailed(reply) => {
            of_server(reply.code())
        }
        error => MailError::unavailable(error),
    }
}

/// Sends letters to a mail server.
pub struct SmtpMailer {
    server: Server,
    /// Connections that are not in use, with the time since when. There are never more than letters
    /// are sent at once.
    idle: Mutex<Vec<(Session, Instant)>>,
    /// May hold letters from a time when no mail server was configured.
    folder: Folder,
    sender: Sender,
    give_up: Duration,
}

impl SmtpMailer {
    /// How long a letter may be deferred by default (RFC 5321, section 4.5.4.1: at least 4 to 5
    /// days).
    pub const GIVE_UP: Duration = Duration::from_hours(5 * 24);

    /// A mailer that connects when it has a letter to send. `folder` is the folder of a
    /// [`FileMailer`](super::FileMailer) that may have been used before. A letter that the server
    /// still defers after `give_up` is refused.
    ///
    /// # Errors
    /// [`SmtpUrlError`]: never for a parsed URL.
    pub fn try_new(
        url: &SmtpUrl,
        folder: &Path,
        sender: Sender,
        give_up: Duration,
    ) -> Result<Self, SmtpUrlError> {
        let server = Server::of(&url.0).ok_or(SmtpUrlError)?;
        Ok(Self { server, idle: Mutex::default(), folder: Folder::new(folder), sender, give_up })
    }

    /// A connection that is still good, or a new one.
    #[expect(clippy::disallowed_methods, reason = "a real server keeps real time")]
    async fn session(&self) -> Result<Session, MailError> {
        while let Some(mut session) = self.take_idle() {
            if session.is_alive().await {
                return Ok(session);
            }
        }
        let connected = timeout(TIMEOUT, self.server.connect()).await;
        connected.unwrap_or(Err(Error::Timeout)).map_err(not_connected)
    }

    /// Takes the connection that was used last, and drops those that were not used for long.
    fn take_idle(&self) -> Option<Session> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(_, since)| since.elapsed() < IDLE);
        idle.pop().map(|(session, _)| session)
    }

    fn keep(&self, session: Session) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push((session, Instant::now()));
    }
}

#[async_trait]
impl Mailer for SmtpMailer {
    async fn send(&self, letter: &Letter) -> Result<Arc<str>, MailError> {
        let id = letter.message_id(self.sender.domain());
        let message = letter.message(&self.sender)?;
        let mut session = self.session().await?;
        match session.hand_over(&message).await {
            Ok(()) => {
                self.keep(session);
                Ok(id.into())
            }
            Err(error) => {
                session.end().await;
                Err(match error {
                    MailError::PutOff(code) if letter.waited() >= self.give_up => {
                        MailError::Refused(code)
                    }
                    error => error,
                })
            }
        }
    }

    async fn forget(&self, customer_id: Uuid) -> Result<(), MailError> {
        self.folder.forget(customer_id).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_url_names_a_server_and_hides_its_password() {
        for good in [
            "smtp://localhost:2525",
            "smtps://me:secret@mail.example",
            "smtp://me:p%40ss@mail.example:587?tls=required",
        ] {
            let url: SmtpUrl = good.parse().unwrap();
            let shown = format!("{url:?}");
            assert!(!shown.contains("secret") && !shown.contains("p%40ss"), "{shown}");
            assert!(shown.contains("mail.example") || shown.contains("localhost"), "{shown}");
        }
        for bad in [
            "",
            "mail.example",
            "http://mail.example",
            "smtps://",
            "smtp://h?tls=maybe",
            "smtp://h?tls=Required",
            "smtp://h?TLS=required",
            "smtp://h?ssl=required",
            "smtp://h?tls=required&starttls=1",
            "smtps://h?tls=required",
            "smtp://me@h",
            "smtp://:secret@h",
        ] {
            assert_eq!(bad.parse::<SmtpUrl>(), Err(SmtpUrlError), "{bad}");
        }
    }
}
