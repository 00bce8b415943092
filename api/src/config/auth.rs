//! Whose tokens count.

use super::{ConfigError, text};
use crate::auth::KeySetSource;
use std::{path::PathBuf, time::Duration};

/// What is said about tokens, before it is checked against each other.
#[derive(Clone, Debug, clap::Args)]
pub struct AuthSettings {
    /// The public key (PEM) that tokens are checked with; unset: a key pair made under the data
    /// directory.
    #[arg(long, env = "AUTH_PUBLIC_KEY_FILE", value_name = "FILE", global = true)]
    #[arg(hide_short_help = true, conflicts_with = "auth_jwks_url")]
    pub auth_public_key_file: Option<PathBuf>,
    /// Where the issuer publishes the keys that tokens are checked with (a JWK set).
    #[arg(long, env = "AUTH_JWKS_URL", value_name = "URL", global = true)]
    #[arg(hide_short_help = true, value_parser = key_set_url)]
    pub auth_jwks_url: Option<String>,
    /// How often these keys are fetched, in seconds.
    #[arg(long, env = "AUTH_JWKS_REFRESH_SECONDS", value_name = "N", default_value_t = 300)]
    #[arg(hide_short_help = true, global = true)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub auth_jwks_refresh_seconds: u64,
    /// How long they count while the issuer does not answer, in seconds.
    #[arg(long, env = "AUTH_JWKS_STALE_SECONDS", value_name = "N", default_value_t = 86_400)]
    #[arg(hide_short_help = true, global = true)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub auth_jwks_stale_seconds: u64,
    /// Who signs the tokens (`iss`).
    #[arg(long, env = "AUTH_ISSUER", value_name = "ISS", hide_short_help = true, global = true)]
    #[arg(value_parser = text())]
    pub auth_issuer: Option<String>,
    /// Whom the tokens are for (`aud`).
    #[arg(long, env = "AUTH_AUDIENCE", value_name = "AUD", hide_short_help = true, global = true)]
    #[arg(value_parser = text())]
    pub auth_audience: Option<String>,
    /// Allows the key pair under the data directory beyond loopback.
    #[arg(long, env = "AUTH_BUILTIN", value_name = "BOOL", global = true, hide_short_help = true)]
    #[arg(value_parser = clap::builder::BoolishValueParser::new(), default_value = "false")]
    #[arg(num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub auth_builtin: bool,
}

fn key_set_url(text: &str) -> Result<String, &'static str> {
    KeySetSource::try_new(text, Duration::ZERO, Duration::ZERO).map(|_| text.to_owned())
}

/// Whose tokens count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthChoice {
    /// Those signed by the key pair under the data directory.
    BuiltIn,
    /// Those signed by somebody else.
    PublicKey {
        /// Their public key, PEM.
        file: PathBuf,
        /// `iss`.
        issuer: String,
        /// `aud`.
        audience: String,
    },
    /// Those signed with keys that somebody else publishes.
    KeySet {
        /// Where.
        source: KeySetSource,
        /// `iss`.
        issuer: String,
        /// `aud`.
        audience: String,
    },
}

impl AuthSettings {
    pub(super) fn choose(self) -> Result<AuthChoice, ConfigError> {
        if self.auth_public_key_file.is_none() && self.auth_jwks_url.is_none() {
            return Ok(AuthChoice::BuiltIn);
        }
        let (Some(issuer), Some(audience)) = (self.auth_issuer, self.auth_audience) else {
            return Err(ConfigError::IncompleteAuth);
        };
        if let Some(file) = self.auth_public_key_file {
            return Ok(AuthChoice::PublicKey { file, issuer, audience });
        }
        let [refresh, stale] = [self.auth_jwks_refresh_seconds, self.auth_jwks_stale_seconds];
        let [refresh, stale] = [refresh, stale].map(Duration::from_secs);
        let url = self.auth_jwks_url.unwrap_or_default();
        let source = KeySetSource::try_new(&url, refresh, stale).map_err(ConfigError::KeySetUrl)?;
        Ok(AuthChoice::KeySet { source, issuer, audience })
    }
}
