//! The mailer's port.
//!
//! SMTP knows no deduplication. So a letter has one Message-ID however often it is sent, and it is sent once, unless the
//! process dies, or the server's answer is lost, between the sending and the event that records it.

mod files;
mod letter;
mod sender;
mod smtp;

use async_trait::async_trait;
use std::sync::Arc;
use uuid::Uuid;

pub use files::FileMailer;
pub use letter::Letter;
pub use sender::{Sender, SenderError};
pub use smtp::{SmtpMailer, SmtpUrl, SmtpUrlError};

/// Why a letter did not go out.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// It never will: the server's code for it, or a word of ours. Says nothing about a person, as it goes into the log.
    #[error("the letter is refused: {0}")]
    Refused(Arc<str>),
    /// The server puts this letter off, and takes others: its code.
    #[error("the letter is put off: {0}")]
    PutOff(Arc<str>),
    /// Not now; the same may work later. Its text goes into log lines, so it names no recipient.
    #[error("the mail server does not take the letter now")]
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
    /// Sends a letter; its Message-ID, the same for each time it is sent.
    ///
    /// # Errors
    /// [`MailError`], for what it says.
    async fn send(&self, letter: &Letter) -> Result<Arc<str>, MailError>;

    /// Destroys what is kept of letters to a customer.
    ///
    /// # Errors
    /// [`MailError::Unavailable`]: try again.
    async fn forget(&self, customer_id: Uuid) -> Result<(), MailError>;
}

/// Takes every letter and keeps none, for where mail does not matter.
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
