//! The built-in key pair: signs the tokens of a shop that has no identity provider.

use super::{AUDIENCE, ISSUER, Role};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use events::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use std::{fs, io, io::Write, path::Path, time::Duration};

/// How long a token of ours is valid.
pub const TOKEN_LIFETIME: Duration = Duration::from_hours(24);

/// An Ed25519 key pair.
pub struct AuthKeys {
    private: EncodingKey,
    public: Vec<u8>,
}

/// Why there is no key pair, or no token.
#[derive(Debug, thiserror::Error)]
pub enum AuthKeyError {
    /// The file cannot be read or made.
    #[error("the token key {path} cannot be read or made")]
    File {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What is there is no key that can be used.
    #[error("{0} is not a usable key")]
    Malformed(String),
    /// Keys cannot be fetched at all.
    #[error("the client that fetches keys cannot be made")]
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
    /// The key pair in this file (PKCS #8), made now if there is none; readable by its owner only.
    ///
    /// # Errors
    /// When the file cannot be read or made, or holds something else.
    pub fn load_or_create(path: &Path) -> Result<Self, AuthKeyError> {
        let name = path.display().to_string();
        let file = |source| AuthKeyError::File { path: name.clone(), source };
        let pkcs8 = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create(path).map_err(file)?;
                // What another process made at the same moment counts for both.
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
    /// When the key does not sign.
    pub fn sign(&self, role: Role, subject: &str, now: Timestamp) -> Result<String, AuthKeyError> {
        let issued = now.timestamp();
        let lifetime = i64::try_from(TOKEN_LIFETIME.as_secs()).unwrap_or(i64::MAX);
        let exp = issued.saturating_add(lifetime);
        let (iss, aud, sub, iat, nbf) = (ISSUER, AUDIENCE, subject, issued, issued);
        let claims = Claims { iss, aud, sub, role, iat, nbf, exp };
        jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &self.private)
            .map_err(AuthKeyError::Sign)
    }
}

/// Makes a key file in one step: either it is there whole, or not at all.
fn create(path: &Path) -> io::Result<()> {
    let rng = aws_lc_rs::rand::SystemRandom::new();
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&rng)
        .map_err(|_| io::Error::other("the system gives no random numbers"))?;
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
    // A link, unlike a rename, does not replace what is there.
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
    fn a_key_pair_is_made_once_for_its_owner_only() {
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
