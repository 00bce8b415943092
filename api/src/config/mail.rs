//! Settings of the mail.

use super::{ConfigError, text};
use commands::mail::{Sender, SmtpMailer, SmtpUrl};
use std::time::Duration;

/// What the command line and the environment say of mail.
#[derive(Clone, clap::Args)]
pub struct MailSettings {
    /// The mail server, `smtps://user:password@host` or `smtp://...?tls=required`; unset: mails
    /// are written as files under the data directory.
    // Read later: an error of clap's repeats the value, and it may hold a password.
    #[arg(long, env = "SMTP_URL", value_name = "URL", hide_env_values = true, global = true)]
    #[arg(hide_short_help = true, value_parser = text())]
    pub smtp_url: Option<String>,
    /// Who writes, as in "The Book Shop <orders@shop.example>": the name is the shop's.
    #[arg(long, env = "MAIL_FROM", value_name = "SENDER", global = true, hide_short_help = true)]
    pub mail_from: Option<Sender>,
    /// How long the mail server may put a letter off before it is given up, in seconds.
    #[arg(long, env = "MAIL_GIVE_UP_SECONDS", value_name = "N", hide_short_help = true)]
    #[arg(default_value_t = SmtpMailer::GIVE_UP.as_secs(), global = true)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=2_592_000))]
    pub mail_give_up_seconds: u64,
}

impl std::fmt::Debug for MailSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MailSettings").field("mail_from", &self.mail_from).finish_non_exhaustive()
    }
}

/// How mails go out.
#[derive(Clone, Debug)]
pub struct MailConfig {
    /// The mail server; `None` for files under the data directory.
    pub server: Option<SmtpUrl>,
    /// Who writes.
    pub sender: Sender,
    /// How long the server may put a letter off.
    pub give_up: Duration,
}

impl Default for MailConfig {
    fn default() -> Self {
        Self { server: None, sender: Sender::default(), give_up: SmtpMailer::GIVE_UP }
    }
}

impl MailConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// A server without a sender, or a URL that names no server.
    pub(super) fn try_new(settings: MailSettings) -> Result<Self, ConfigError> {
        let MailSettings { smtp_url, mail_from, mail_give_up_seconds } = settings;
        let give_up = Duration::from_secs(mail_give_up_seconds);
        let server = smtp_url.map(|url| url.parse().map_err(ConfigError::Smtp)).transpose()?;
        match (server, mail_from) {
            (Some(_), None) => Err(ConfigError::MailWithoutSender),
            (server, sender) => Ok(Self { server, sender: sender.unwrap_or_default(), give_up }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(smtp_url: Option<&str>, mail_from: Option<&str>) -> Result<MailConfig, ConfigError> {
        let mail_from = mail_from.map(|sender| sender.parse().unwrap());
        let smtp_url = smtp_url.map(str::to_owned);
        MailConfig::try_new(MailSettings { smtp_url, mail_from, mail_give_up_seconds: 60 })
    }

    #[tokio::test]
    async fn a_server_needs_a_sender_and_a_bad_url_is_not_repeated() {
        assert_eq!(config(None, None).unwrap().server, None);
        let shop = Some("Shop <a@shop.example>");
        let with_server = config(Some("smtps://me:secret@mail.example"), shop).unwrap();
        assert!(!format!("{with_server:?}").contains("secret"));
        let refused = config(Some("smtp://mail.example"), None).unwrap_err();
        assert_eq!(refused, ConfigError::MailWithoutSender);
        let refused = config(Some("mail://me:secret@mail.example"), shop).unwrap_err();
        assert!(!format!("{refused} {refused:?}").contains("secret"));
    }
}
