//! The built-in key pair, which signs the tokens of a shop without an identity provider.

use super::{AUDIENCE, ISSUER, Role};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use events::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use std::{fs, io, io::Write, path::Path, time::Duration};

/// How long a token signed with the built-in key pair is valid.
pub const TOKEN_LIFETIME: Duration = Duration::from_hours(24);

/// An Ed25519 key pair.
pub struct AuthKeys {
    private: EncodingKey,
    public: Vec<u8>,
}

/// Why there is no key pair, or no token.
#[derive(Debug, thiserror::Error)]
pub enum AuthKeyError {
    /// The file cannot be read or created.
    #[error("the token key {path} cannot be read or created")]
    File {
        /// The file.
        path: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The file or key set has no usable key.
    #[error("{0} is not a usable key")]
    Malformed(String),
    /// The HTTP client for key sets cannot be created.
    #[error("the HTTP client that fetches keys cannot be created")]
    Client(#[source] reqwest::Error),
    /// Signing failed.
    #[error("a token cannot be signed")]
    Sign(#[source] jsonwebtoken::errors::Error),
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    role: Role,
    iat: i64,
    nbf: i64,
    exp: i64,
}

impl AuthKeys {
    /// The key pair in this file (PKCS #8). Creates the file if it does not exist, readable by its
    /// owner only.
    ///
    /// # Errors
    /// If the file cannot be read or created, or has no usable key.
    pub fn load_or_create(path: &Path) -> Result<Self, AuthKeyError> {
        let name = path.display().to_string();
        let file = |source| AuthKeyError::File { path: name.clone(), source };
        let pkcs8 = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create(path).map_err(file)?;
                // Another process may have created the file at the same moment. Both use that one.
                fs::read(path).map_err(file)?
            }
            read => read.map_err(file)?,
        };
        let pair = Ed25519KeyPair::from_pkcs8(&pkcs8)
            .map_err(|_| AuthKeyError::Malformed(name.clone()))?;
        let public = pair.public_key().as_ref().to_vec();
        Ok(Self { private: EncodingKey::from_ed_der(&pkcs8), public })
    }

    /// The public key, raw.
    pub fn public_key(&self) -> &[u8] {
        &self.public
    }

    /// A token for `subject` in `role`, valid for [`TOKEN_LIFETIME`] from `now`.
    ///
    /// # Errors
    /// If signing fails.
    pub fn sign(&self, role: Role, subject: &str, now: Timestamp) -> Result<String, AuthKeyError> {
        self.sign_for(role, subject, now, TOKEN_LIFETIME)
    }

    /// The same, valid for `lifetime`.
    ///
    /// # Errors
    /// If signing fails.
    pub fn sign_for(
        &self,
        role: Role,
        subject: &str,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<String, AuthKeyError> {
        let issued = now.timestamp();
        let lifetime = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
        let exp = issued.saturating_add(lifetime);
        let (iss, aud, sub, iat, nbf) = (ISSUER, AUDIENCE, subject, issued, issued);
        let claims = Claims { iss, aud, sub, role, iat, nbf, exp };
        jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &self.private)
            .map_err(AuthKeyError::Sign)
    }
}

/// Creates a key file atomically: it is complete, or does not exist.
fn create(path: &Path) -> io::Result<()> {
    let rng = aws_lc_rs::rand::SystemRandom::new();
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&rng)
        .map_err(|_| io::Error::other("the system has no source of random numbers"))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let draft = folder.join(format!(".token-key.{}", std::process::id()));
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&draft)?;
    file.write_all(pkcs8.as_ref())?;
    file.sync_all()?;
    // Unlike a rename, a link does not replace an existing file.
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_pair_is_created_once_and_readable_by_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys/token.pk8");
        let made = AuthKeys::load_or_create(&path).unwrap();
        let loaded = AuthKeys::load_or_create(&path).unwrap();
        assert_eq!(made.public_key(), loaded.public_key());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        fs::write(&path, "no key").unwrap();
        assert!(matches!(AuthKeys::load_or_create(&path), Err(AuthKeyError::Malformed(_))));
    }
}
