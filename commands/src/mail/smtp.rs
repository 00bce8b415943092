//! Sends letters to a mail server.

use super::{
    Letter, MailError, Mailer, Sender,
    files::Folder,
    session::{hand_over, of_server},
};
use async_trait::async_trait;
use lettre::transport::smtp::{
    Error, SMTP_PORT, SUBMISSION_PORT, SUBMISSIONS_PORT,
    authentication::{Credentials, DEFAULT_MECHANISMS},
    client::{AsyncSmtpConnection, Tls, TlsParameters},
    extension::ClientId,
};
use percent_encoding::percent_decode_str;
use std::{
    fmt,
    path::Path,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use url::Url;
use uuid::Uuid;

/// How long the server may take to accept a connection.
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

/// Where the mail server is, and how to talk to it.
struct Server {
    host: String,
    port: u16,
    tls: Tls,
    credentials: Option<Credentials>,
    /// The name that the program greets the server with.
    name: ClientId,
}

impl Server {
    /// The server of a URL. The path, if there is one, is the name to greet with.
    fn of(url: &str) -> Option<Self> {
        let url = Url::parse(url).ok()?;
        let host = url.host_str().filter(|host| !host.is_empty())?.to_owned();
        let parameters = || TlsParameters::new(host.clone()).ok();
        let wanted = url.query_pairs().find(|(name, _)| name == "tls").map(|(_, value)| value);
        let (tls, port) = match (url.scheme(), wanted.as_deref()) {
            ("smtp", None) => (Tls::None, SMTP_PORT),
            ("smtp", Some("required")) => (Tls::Required(parameters()?), SUBMISSION_PORT),
            ("smtp", Some("opportunistic")) => (Tls::Opportunistic(parameters()?), SUBMISSION_PORT),
            ("smtps", _) => (Tls::Wrapper(parameters()?), SUBMISSIONS_PORT),
            _ => return None,
        };
        let plain = |text: &str| Some(percent_decode_str(text).decode_utf8().ok()?.into_owned());
        let credentials = match url.password() {
            Some(password) => Some(Credentials::new(plain(url.username())?, plain(password)?)),
            None => None,
        };
        let name = match url.path().trim_matches('/') {
            "" => ClientId::default(),
            name => ClientId::Domain(name.to_owned()),
        };
        Some(Self { port: url.port().unwrap_or(port), host, tls, credentials, name })
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, Error> {
        let Self { host, port, tls, credentials, name } = self;
        let wrapped = match tls {
            Tls::Wrapper(parameters) => Some(parameters.clone()),
            Tls::None | Tls::Opportunistic(_) | Tls::Required(_) => None,
        };
        let at = (host.as_str(), *port);
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(at, Some(TIMEOUT), name, wrapped, None).await?;
        match tls {
            Tls::Opportunistic(parameters) if connection.can_starttls() => {
                connection.starttls(parameters.clone(), name).await?;
            }
            Tls::Required(parameters) => connection.starttls(parameters.clone(), name).await?,
            Tls::None | Tls::Opportunistic(_) | Tls::Wrapper(_) => {}
        }
        if let Some(credentials) = credentials {
            connection.auth(DEFAULT_MECHANISMS, credentials).await?;
        }
        Ok(connection)
    }
}

/// Sends letters to a mail server.
pub struct SmtpMailer {
    server: Server,
    /// Connections that are not in use, with the time since when. There are never more than letters
    /// are sent at once.
    idle: Mutex<Vec<(AsyncSmtpConnection, Instant)>>,
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
    async fn connection(&self) -> Result<AsyncSmtpConnection, MailError> {
        while let Some(mut connection) = self.take_idle() {
            if connection.test_connected().await {
                return Ok(connection);
            }
        }
        self.server.connect().await.map_err(|error| of_server(&error))
    }

    /// Takes the connection that was used last, and drops those that were not used for long.
    fn take_idle(&self) -> Option<AsyncSmtpConnection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(_, since)| since.elapsed() < IDLE);
        idle.pop().map(|(connection, _)| connection)
    }

    fn keep(&self, connection: AsyncSmtpConnection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push((connection, Instant::now()));
    }
}

#[async_trait]
impl Mailer for SmtpMailer {
    async fn send(&self, letter: &Letter) -> Result<Arc<str>, MailError> {
        let id = letter.message_id(self.sender.domain());
        let message = letter.message(&self.sender)?;
        let mut connection = self.connection().await?;
        match hand_over(&mut connection, &message).await {
            Ok(()) => {
                self.keep(connection);
                Ok(id.into())
            }
            Err(error) => {
                connection.abort().await;
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
        for bad in ["", "mail.example", "http://mail.example", "smtp://h?tls=maybe", "smtps://"] {
            assert_eq!(bad.parse::<SmtpUrl>(), Err(SmtpUrlError), "{bad}");
        }
    }
}
