//! The mailer's port.
//!
//! SMTP has no deduplication. So every attempt to send a letter uses the same Message-ID, and a
//! letter is sent once, unless the process dies or the server's answer is lost after the server
//! took the letter and before the log records it.

mod address;
mod files;
mod letter;
mod sender;
mod session;
mod smtp;

use async_trait::async_trait;
use std::sync::Arc;
use uuid::Uuid;

pub use address::{Address, AddressError};
pub use files::FileMailer;
pub use letter::Letter;
pub use sender::{Sender, SenderError};
pub use smtp::{SmtpMailer, SmtpUrl, SmtpUrlError};

/// Why a letter was not sent.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// It never will be, and this says nothing about other letters. Contains the server's code or
    /// one of this program's. The code goes into the log, so it contains no personal data.
    #[error("the letter was refused: {0}")]
    Refused(Arc<str>),
    /// The server defers this letter, but takes others. Contains the server's code.
    #[error("the letter was deferred: {0}")]
    PutOff(Arc<str>),
    /// The server takes no letters now; a later attempt may succeed. The text goes into log lines,
    /// so it does not name the recipient.
    #[error("the mail server cannot take the letter now")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl MailError {
    pub(crate) fn unavailable(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unavailable(why.into())
    }
}

/// Sends letters.
#[async_trait]
pub trait Mailer: Send + Sync + 'static {
    /// Sends a letter. Returns its Message-ID, which is the same for every attempt.
    ///
    /// # Errors
    /// Any [`MailError`].
    async fn send(&self, letter: &Letter) -> Result<Arc<str>, MailError>;

    /// Destroys all stored letters to a customer.
    ///
    /// # Errors
    /// [`MailError::Unavailable`]: try again.
    async fn forget(&self, customer_id: Uuid) -> Result<(), MailError>;
}

/// Accepts every letter and drops it, for tests and benchmarks.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoMailer;

#[async_trait]
impl Mailer for NoMailer {
    async fn send(&self, letter: &Letter) -> Result<Arc<str>, MailError> {
        Ok(letter.message_id("localhost").into())
    }

    async fn forget(&self, _: Uuid) -> Result<(), MailError> {
        Ok(())
    }
}
