//! Which tokens are accepted.

use super::{ConfigError, text};
use crate::auth::KeySetSource;
use std::{path::PathBuf, time::Duration};

/// The settings of tokens, before they are checked against each other.
#[derive(Clone, Debug, clap::Args)]
pub struct AuthSettings {
    /// File with the public key (PEM) that verifies tokens. Without it and `AUTH_JWKS_URL`, the
    /// program uses a key pair of its own from the data directory.
    #[arg(long, env = "AUTH_PUBLIC_KEY_FILE", value_name = "FILE", global = true)]
    #[arg(hide_short_help = true, conflicts_with = "auth_jwks_url")]
    pub auth_public_key_file: Option<PathBuf>,
    /// URL of the issuer's JWK set, whose keys verify tokens; `https`, or `http` on loopback.
    #[arg(long, env = "AUTH_JWKS_URL", value_name = "URL", hide_env_values = true, global = true)]
    #[arg(hide_short_help = true, value_parser = key_set_url)]
    pub auth_jwks_url: Option<String>,
    /// How often the JWK set is fetched, in seconds.
    #[arg(long, env = "AUTH_JWKS_REFRESH_SECONDS", value_name = "N", default_value_t = 300)]
    #[arg(hide_short_help = true, global = true)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub auth_jwks_refresh_seconds: u64,
    /// How long the last JWK set stays valid while the issuer does not answer, in seconds.
    #[arg(long, env = "AUTH_JWKS_STALE_SECONDS", value_name = "N", default_value_t = 86_400)]
    #[arg(hide_short_help = true, global = true)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub auth_jwks_stale_seconds: u64,
    /// Required issuer (`iss`) of tokens.
    #[arg(long, env = "AUTH_ISSUER", value_name = "ISS", hide_short_help = true, global = true)]
    #[arg(value_parser = text())]
    pub auth_issuer: Option<String>,
    /// Required audience (`aud`) of tokens.
    #[arg(long, env = "AUTH_AUDIENCE", value_name = "AUD", hide_short_help = true, global = true)]
    #[arg(value_parser = text())]
    pub auth_audience: Option<String>,
    /// Allow the program's own key pair on an address other than loopback.
    #[arg(long, env = "AUTH_BUILTIN", value_name = "BOOL", global = true, hide_short_help = true)]
    #[arg(value_parser = clap::builder::BoolishValueParser::new(), default_value = "false")]
    #[arg(num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub auth_builtin: bool,
}

fn key_set_url(text: &str) -> Result<String, &'static str> {
    KeySetSource::try_new(text, Duration::ZERO, Duration::ZERO).map(|_| text.to_owned())
}

/// Which tokens are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthChoice {
    /// Tokens signed with the key pair in the data directory.
    BuiltIn,
    /// Tokens verified with one public key.
    PublicKey {
        /// The public key, PEM.
        file: PathBuf,
        /// Required `iss`.
        issuer: String,
        /// Required `aud`.
        audience: String,
    },
    /// Tokens verified with the keys that an issuer publishes.
    KeySet {
        /// Where the keys are published.
        source: KeySetSource,
        /// Required `iss`.
        issuer: String,
        /// Required `aud`.
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
