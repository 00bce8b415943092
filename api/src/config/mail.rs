//! Settings of e-mail.

use super::{ConfigError, text};
use commands::mail::{Sender, SmtpMailer, SmtpUrl};
use std::time::Duration;

/// Settings of e-mail, before they are checked.
#[derive(Clone, clap::Args)]
pub struct MailSettings {
    /// Mail server, `smtps://USER:PASSWORD@HOST` or `smtp://HOST?tls=required`. Without it, e-mails
    /// are written as files into the data directory.
    // Parsed later: an error of clap would repeat the value, which may contain a password.
    #[arg(long, env = "SMTP_URL", value_name = "URL", hide_env_values = true, global = true)]
    #[arg(hide_short_help = true, value_parser = text())]
    pub smtp_url: Option<String>,
    /// Sender of e-mails, such as `The Book Shop <orders@shop.example>`. E-mails call the shop by
    /// this name.
    #[arg(long, env = "MAIL_FROM", value_name = "SENDER", global = true, hide_short_help = true)]
    pub mail_from: Option<Sender>,
    /// How long to retry an e-mail that the mail server defers, in seconds.
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

/// How e-mails are sent.
#[derive(Clone, Debug)]
pub struct MailConfig {
    /// The mail server; `None` for files under the data directory.
    pub server: Option<SmtpUrl>,
    /// The sender.
    pub sender: Sender,
    /// How long to retry a deferred e-mail.
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
    /// A server without a sender, or an invalid URL.
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
