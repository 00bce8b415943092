//! A key store in memory, for tests. The key of a subject is derived from its id, so it is always
//! the same.

use super::{KeyError, KeyStore};
use crate::seal::Key;
use async_trait::async_trait;
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};
use uuid::Uuid;

/// A key store that keeps nothing on disk.
#[derive(Debug, Default)]
pub struct MemoryKeyStore {
    /// Whether the key of a subject still exists; `false` once it is destroyed.
    subjects: Mutex<BTreeMap<Uuid, bool>>,
}

impl MemoryKeyStore {
    /// Whether the key of `subject` was destroyed.
    pub fn is_destroyed(&self, subject: Uuid) -> bool {
        self.subjects().get(&subject) == Some(&false)
    }

    /// The same as [`create`](KeyStore::create), for callers that are not async.
    ///
    /// # Errors
    /// [`KeyError::Destroyed`].
    pub fn make(&self, subject: Uuid) -> Result<Key, KeyError> {
        let is_there = *self.subjects().entry(subject).or_insert(true);
        if is_there { Ok(key_of(subject.as_bytes())) } else { Err(KeyError::Destroyed) }
    }

    fn subjects(&self) -> std::sync::MutexGuard<'_, BTreeMap<Uuid, bool>> {
        self.subjects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key_of(name: &[u8]) -> Key {
    let (one, other) =
        (Uuid::new_v5(&Uuid::NAMESPACE_OID, name), Uuid::new_v5(&Uuid::NAMESPACE_URL, name));
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(one.as_bytes());
    bytes[16..].copy_from_slice(other.as_bytes());
    Key::new(bytes)
}

#[async_trait]
impl KeyStore for MemoryKeyStore {
    async fn create(&self, subject: Uuid) -> Result<Key, KeyError> {
        self.make(subject)
    }

    async fn get(&self, subjects: &[Uuid]) -> Result<Vec<Option<Key>>, KeyError> {
        let known = self.subjects();
        let key = |subject: &Uuid| known.get(subject)?.then(|| key_of(subject.as_bytes()));
        Ok(subjects.iter().map(key).collect())
    }

    async fn destroy(&self, subject: Uuid) -> Result<(), KeyError> {
        self.subjects().insert(subject, false);
        Ok(())
    }

    async fn secret(&self, name: &str) -> Result<Key, KeyError> {
        Ok(key_of(name.as_bytes()))
    }
}
