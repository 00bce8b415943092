//! Encryption of personal data in the log. Each customer has a key; the data is unreadable once the
//! key is destroyed.

use aes_gcm_siv::{
    Aes256GcmSiv, KeyInit, Nonce,
    aead::{Aead, Payload},
};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};
use uuid::Uuid;

/// A 256-bit secret: a customer's key or a secret of the shop.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl Key {
    /// Makes a key from its bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Generates a key from the system's random numbers.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The bytes of the key, for a key store.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 128 bits of HMAC-SHA-256 of `parts` with this key. Each part is prefixed with its
    /// length, so that the boundaries between parts count too.
    pub fn hmac(&self, parts: &[&[u8]]) -> [u8; 16] {
        use hmac::{Hmac, KeyInit, Mac};
        // HMAC accepts keys of any length, so this never fails.
        let Ok(mut mac) = Hmac::<sha2::Sha256>::new_from_slice(&self.0) else { return [0; 16] };
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        let mut tag = [0; 16];
        tag.copy_from_slice(&mac.finalize().into_bytes()[..16]);
        tag
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// An encrypted text, in base64.
///
/// The cipher is AES-256-GCM-SIV (RFC 8452) with the customer and the field as associated data and
/// a fixed nonce. The same text in the same field of the same customer always gives the same bytes,
/// so an aggregate can see without the key that nothing changed. This cipher is safe with a
/// repeated nonce: an attacker learns only that two such texts are equal.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(description = "Encrypted with the customer's key, in base64.")]
pub struct Sealed(Arc<str>);

/// The text cannot be decrypted: wrong key, customer or field, or damaged text.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an encrypted text cannot be decrypted with its key")]
pub struct UnsealError;

impl Sealed {
    /// Encrypts `text`, the `field` of customer `subject`.
    ///
    /// # Errors
    /// When the text exceeds the cipher's limit (64 GiB).
    pub fn seal(key: &Key, subject: Uuid, field: &str, text: &str) -> Result<Self, UnsealError> {
        let aad = associated(subject, field);
        let sealed = cipher(key)
            .encrypt(&Nonce::default(), Payload { msg: text.as_bytes(), aad: &aad })
            .map_err(|_| UnsealError)?;
        Ok(Self(STANDARD_NO_PAD.encode(sealed).into()))
    }

    /// Decrypts the text, which must be the `field` of customer `subject`.
    ///
    /// # Errors
    /// [`UnsealError`] for a wrong key, subject or field, or damaged text.
    pub fn open(&self, key: &Key, subject: Uuid, field: &str) -> Result<String, UnsealError> {
        let sealed = STANDARD_NO_PAD.decode(&*self.0).map_err(|_| UnsealError)?;
        let aad = associated(subject, field);
        let text = cipher(key)
            .decrypt(&Nonce::default(), Payload { msg: &sealed, aad: &aad })
            .map_err(|_| UnsealError)?;
        String::from_utf8(text).map_err(|_| UnsealError)
    }

    /// The encrypted text, as events and read models hold it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Sealed {
    /// Takes an encrypted text that was read from a read model.
    fn from(sealed: String) -> Self {
        Self(sealed.into())
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed(..)")
    }
}

fn cipher(key: &Key) -> Aes256GcmSiv {
    Aes256GcmSiv::new(&key.0.into())
}

fn associated(subject: Uuid, field: &str) -> Vec<u8> {
    [subject.as_bytes(), field.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_with_its_key_subject_and_field_only() {
        let (key, other) = (Key::new([1; 32]), Key::new([2; 32]));
        let (ann, bob) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let sealed = Sealed::seal(&key, ann, "email", "ann@example.org").unwrap();
        assert_eq!(sealed.open(&key, ann, "email").unwrap(), "ann@example.org");
        assert_eq!(sealed.open(&other, ann, "email"), Err(UnsealError));
        assert_eq!(sealed.open(&key, bob, "email"), Err(UnsealError));
        assert_eq!(sealed.open(&key, ann, "first_name"), Err(UnsealError));
        assert_eq!(Sealed::from("?".to_owned()).open(&key, ann, "email"), Err(UnsealError));
        assert_eq!(Sealed::seal(&key, ann, "email", "ann@example.org").unwrap(), sealed);
    }
}
