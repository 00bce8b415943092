//! The key store in PostgreSQL.

use crate::{
    app::{fresh_database, ground},
    program::{Orphan, Program, output},
};
use events::keys::{KeyError, KeyStore};
use futures::future::join_all;
use orderlog::{config::LogChoice, keys::PostgresKeyStore};
use projections::database::{PoolSettings, connect};
use uuid::Uuid;

#[tokio::test]
async fn a_key_is_made_once_survives_and_stays_destroyed() {
    let pool = connect(fresh_database().await, PoolSettings::default()).await.unwrap();
    // Several nodes start at the same time.
    let stores = join_all((0..5).map(|_| PostgresKeyStore::open(pool.clone()))).await;
    let [store, other, ..] = stores.as_slice() else { panic!("five stores") };
    let (store, other) = (store.as_ref().unwrap(), other.as_ref().unwrap());
    let [ann, bob] = [1, 2].map(Uuid::from_u128);
    let made = store.create(ann).await.unwrap();
    assert_eq!(other.create(ann).await.unwrap(), made);
    let secret = store.secret("fingerprint").await.unwrap();
    assert_eq!(other.secret("fingerprint").await.unwrap(), secret);
    assert_ne!(other.secret("email").await.unwrap(), secret);
    assert_eq!(other.get(&[bob, ann, bob]).await.unwrap(), [None, Some(made), None]);

    store.destroy(ann).await.unwrap();
    store.destroy(bob).await.unwrap();
    assert_eq!(other.get(&[ann]).await.unwrap(), [None]);
    for gone in [ann, bob] {
        assert!(matches!(other.create(gone).await, Err(KeyError::Destroyed)));
    }
}

/// With other keys than those it was written with, a log is useless.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_stays_with_the_store_of_its_keys() {
    let mut ground = ground(LogChoice::Embedded).await;
    let database = ground.config.database.take();
    let _orphan = Orphan(ground.dir.path());
    assert!(Program::start(&ground).stop().success());
    ground.config.database = database;
    let refused = output(&ground, &["serve", "--listen", "127.0.0.1:0"]);
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && told.contains("keys.sqlite"), "{told}");

    std::fs::remove_dir_all(&ground.config.data_dir).unwrap();
    assert!(Program::start(&ground).stop().success());
    ground.config.database = None;
    let refused = output(&ground, &["serve", "--listen", "127.0.0.1:0"]);
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && told.contains("DATABASE_URL"), "{told}");
}
