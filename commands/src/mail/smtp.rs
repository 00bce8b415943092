//! Sends letters to a mail server.

use super::{Letter, MailError, Mailer, Sender, files::Folder};
use async_trait::async_trait;
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Tokio1Executor,
    transport::smtp::{Error, PoolConfig},
};
use std::{fmt, path::Path, str::FromStr, sync::Arc, time::Duration};
use uuid::Uuid;

/// How long the server may take for each step. A server that accepted a letter but answers later
/// than this gets the letter again.
const TIMEOUT: Duration = Duration::from_mins(1);

/// The largest number of connections, one for each letter that may be sent at the same time, and
/// how long an idle connection is kept.
const CONNECTIONS: u32 = 16;
const IDLE: Duration = Duration::from_secs(30);

/// Reply codes that refuse a letter permanently because of its recipient or its content (RFC 5321).
/// The operator must resolve the other 5xx codes, for example bad credentials.
const FINAL: std::ops::RangeInclusive<u16> = 550..=556;

/// Reply codes that defer one letter because of its mailbox or its content. They do not count
/// against the server, because it may take other letters.
const OWN: std::ops::RangeInclusive<u16> = 450..=452;

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
        let known = AsyncSmtpTransport::<Tokio1Executor>::from_url(text).is_ok();
        known.then(|| Self(text.into())).ok_or(SmtpUrlError)
    }
}

impl fmt::Debug for SmtpUrl {
    /// Leaves out the user and the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or_default();
        write!(f, "{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, host)| host))
    }
}

/// Sends letters to a mail server.
pub struct SmtpMailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
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
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(&url.0)
            .map_err(|_| SmtpUrlError)?
            .timeout(Some(TIMEOUT))
            .pool_config(PoolConfig::new().max_size(CONNECTIONS).idle_timeout(IDLE))
            .build();
        Ok(Self { transport, folder: Folder::new(folder), sender, give_up })
    }
}

#[async_trait]
impl Mailer for SmtpMailer {
    async fn send(&self, letter: &Letter) -> Result<Arc<str>, MailError> {
        let id = letter.message_id(self.sender.domain());
        let message = letter.message(&self.sender)?;
        match self.transport.send(message).await.map_err(|error| answer(&error)) {
            Ok(_) => Ok(id.into()),
            Err(MailError::PutOff(code)) if letter.waited() >= self.give_up => {
                Err(MailError::Refused(code))
            }
            Err(error) => Err(error),
        }
    }

    async fn forget(&self, customer_id: Uuid) -> Result<(), MailError> {
        self.folder.forget(customer_id).await
    }
}

/// What the server's reply means. Only its code is passed on, because its text may contain the
/// recipient's address.
fn answer(error: &Error) -> MailError {
    match error.status() {
        Some(code) => {
            let code = u16::from(code);
            let named = || format!("smtp-{code}").into();
            match code {
                _ if FINAL.contains(&code) => MailError::Refused(named()),
                _ if OWN.contains(&code) => MailError::PutOff(named()),
                _ => MailError::unavailable(format!("the server answered {code}")),
            }
        }
        // This error comes from the system or from TLS, not from the server.
        None => MailError::unavailable(error.to_string()),
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
