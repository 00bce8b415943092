//! The store of keys and secrets, which are never in the log.
//!
//! Everything can be rebuilt except the log and these keys. A customer's key is durable before the
//! first event encrypted with it is written. Destroying the key makes the customer's personal data
//! unreadable in the log and in everything derived from it.

use crate::seal::Key;
use async_trait::async_trait;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};
use uuid::Uuid;

#[cfg(any(test, feature = "testing"))]
mod memory;

#[cfg(any(test, feature = "testing"))]
pub use memory::MemoryKeyStore;

/// Why the key store did not return a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key existed and was destroyed.
    #[error("the key is destroyed")]
    Destroyed,
    /// The store is missing data that it must have. A retry does not help.
    #[error("the key store is damaged")]
    Damaged(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store does not answer.
    #[error("the key store does not answer")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The port of the key store: keys of customers and secrets of the shop.
#[async_trait]
pub trait KeyStore: Send + Sync + 'static {
    /// The key of `subject`, generated now if there was none; durable on return.
    ///
    /// # Errors
    /// [`KeyError::Destroyed`] once [`destroy`](Self::destroy) was called for it.
    async fn create(&self, subject: Uuid) -> Result<Key, KeyError>;

    /// The keys of `subjects`, in order; `None` where there is none or it was destroyed.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn get(&self, subjects: &[Uuid]) -> Result<Vec<Option<Key>>, KeyError>;

    /// Destroys the key of `subject` for ever; durable on return.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn destroy(&self, subject: Uuid) -> Result<(), KeyError>;

    /// The shop's secret of this name, generated on the first call.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn secret(&self, name: &str) -> Result<Key, KeyError>;
}

/// A key store in one SQLite file, for the embedded mode.
pub struct FileKeyStore {
    connection: Arc<Mutex<Connection>>,
}

impl FileKeyStore {
    /// Opens the store, or creates it with a file that only its owner can read.
    ///
    /// # Errors
    /// When the file cannot be opened or created.
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        let connection = Connection::open(path).map_err(failed)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
                .map_err(unavailable)?;
        }
        connection.busy_timeout(std::time::Duration::from_secs(10)).map_err(failed)?;
        connection
            .execute_batch(
                "pragma journal_mode = wal;
                 pragma synchronous = full;
                 -- a destroyed key must not stay in free pages
                 pragma secure_delete = on;
                 create table if not exists customer_key (subject blob primary key, key blob) without rowid;
                 create table if not exists secret (name text primary key, key blob not null) without rowid;",
            )
            .map_err(failed)?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)) })
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, KeyError> + Send + 'static,
    ) -> Result<T, KeyError> {
        let connection = Arc::clone(&self.connection);
        tokio::task::spawn_blocking(move || {
            work(&mut connection.lock().unwrap_or_else(PoisonError::into_inner))
        })
        .await
        .map_err(unavailable)?
    }
}

/// Sorts an error of SQLite: is the store damaged or only unavailable?
fn failed(error: rusqlite::Error) -> KeyError {
    match error.sqlite_error_code() {
        None | Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            KeyError::Damaged(error.into())
        }
        Some(_) => unavailable(error),
    }
}

fn unavailable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> KeyError {
    KeyError::Unavailable(error.into())
}

fn fresh() -> Result<Key, KeyError> {
    Key::random().map_err(|error| unavailable(error.to_string()))
}

fn key(bytes: Vec<u8>) -> Result<Key, KeyError> {
    let bytes = bytes
        .try_into()
        .map_err(|_| KeyError::Damaged("a stored key is not 32 bytes long".into()))?;
    Ok(Key::new(bytes))
}

#[async_trait]
impl KeyStore for FileKeyStore {
    async fn create(&self, subject: Uuid) -> Result<Key, KeyError> {
        self.run(move |connection| {
            connection
                .execute(
                    "insert into customer_key (subject, key) values (?1, ?2) on conflict do nothing",
                    params![subject.as_bytes(), fresh()?.as_bytes()],
                )
                .map_err(failed)?;
            let stored: Option<Vec<u8>> = connection
                .query_row("select key from customer_key where subject = ?1", [subject.as_bytes()], |row| row.get(0))
                .map_err(failed)?;
            stored.map_or(Err(KeyError::Destroyed), key)
        })
        .await
    }

    async fn get(&self, subjects: &[Uuid]) -> Result<Vec<Option<Key>>, KeyError> {
        let subjects = subjects.to_vec();
        self.run(move |connection| {
            let mut select = connection
                .prepare_cached("select key from customer_key where subject = ?1")
                .map_err(failed)?;
            let mut look_up = |subject: Uuid| {
                let stored: Option<Option<Vec<u8>>> = select
                    .query_row([subject.as_bytes()], |row| row.get(0))
                    .optional()
                    .map_err(failed)?;
                stored.flatten().map(key).transpose()
            };
            subjects.into_iter().map(&mut look_up).collect()
        })
        .await
    }

    async fn destroy(&self, subject: Uuid) -> Result<(), KeyError> {
        self.run(move |connection| {
            connection
                .execute(
                    "insert into customer_key (subject, key) values (?1, null)
                     on conflict (subject) do update set key = null",
                    [subject.as_bytes()],
                )
                .map_err(failed)?;
            // The write-ahead log still holds the old page.
            let busy: bool = connection
                .query_row("pragma wal_checkpoint(truncate)", [], |row| row.get(0))
                .map_err(failed)?;
            // No caller gets the key any more, but it may still be on disk: the caller must retry.
            if busy {
                Err(unavailable(
                    "the destroyed key is still on disk: another process is reading the key store",
                ))
            } else {
                Ok(())
            }
        })
        .await
    }

    async fn secret(&self, name: &str) -> Result<Key, KeyError> {
        let name = name.to_owned();
        self.run(move |connection| {
            connection
                .execute(
                    "insert into secret (name, key) values (?1, ?2) on conflict do nothing",
                    params![name, fresh()?.as_bytes()],
                )
                .map_err(failed)?;
            let stored =
                connection
                    .query_row("select key from secret where name = ?1", [name], |row| row.get(0));
            key(stored.map_err(failed)?)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_no_key_store_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.sqlite");
        std::fs::write(&path, [7; 5_000]).unwrap();
        assert!(matches!(FileKeyStore::open(&path), Err(KeyError::Damaged(_))));
    }

    #[tokio::test]
    async fn a_key_is_made_once_survives_and_stays_destroyed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.sqlite");
        let (ann, bob) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let store = FileKeyStore::open(&path).unwrap();
        let made = store.create(ann).await.unwrap();
        let secret = store.secret("fingerprint").await.unwrap();
        drop(store);

        let store = FileKeyStore::open(&path).unwrap();
        assert_eq!(store.create(ann).await.unwrap(), made);
        assert_eq!(store.secret("fingerprint").await.unwrap(), secret);
        assert_eq!(store.get(&[ann, bob]).await.unwrap(), [Some(made), None]);
        store.destroy(ann).await.unwrap();
        assert_eq!(store.get(&[ann]).await.unwrap(), [None]);
        assert!(matches!(store.create(ann).await, Err(KeyError::Destroyed)));
    }

    #[tokio::test]
    async fn no_file_holds_a_key_that_is_destroyed() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileKeyStore::open(&dir.path().join("keys.sqlite")).unwrap();
        let holds = |key: &Key| {
            let files = std::fs::read_dir(dir.path()).unwrap();
            let holds = |bytes: Vec<u8>| bytes.windows(32).any(|part| part == key.as_bytes());
            files
                .filter(|file| holds(std::fs::read(file.as_ref().unwrap().path()).unwrap()))
                .count()
        };
        let subjects: Vec<Uuid> = (1..=200).map(Uuid::from_u128).collect();
        let mut made = Vec::new();
        for subject in &subjects {
            made.push(store.create(*subject).await.unwrap());
        }
        assert!(made.iter().all(|key| holds(key) > 0));
        for gone in [0, 77, 199] {
            store.destroy(subjects[gone]).await.unwrap();
            assert_eq!(holds(&made[gone]), 0);
        }
        assert!(holds(&made[1]) > 0);
    }
}
