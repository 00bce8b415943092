//! Keys and secrets in PostgreSQL (schema `keys`), shared by all nodes of one database.

use async_trait::async_trait;
use events::{
    keys::{KeyError, KeyStore},
    seal::Key,
};
use projections::database::{self, PoolSettings};
use sqlx::{
    PgPool, Postgres, Row,
    postgres::{PgArguments, PgRow},
    query::Query,
};
use uuid::Uuid;

/// The advisory lock for creating the tables. Two nodes may start at once, and `if not exists`
/// alone is not safe then.
const CREATE_LOCK: i64 = 0x6f72_6465_726b_6579;

// In both statements the update changes nothing. It makes `returning` return a row that exists.
const CREATE_KEY: &str = "insert into keys.customer_key as stored (subject, key) values ($1, $2)
     on conflict (subject) do update set key = stored.key
     returning key";
const CREATE_SECRET: &str = "insert into keys.secret as stored (name, key) values ($1, $2)
     on conflict (name) do update set key = stored.key
     returning key";

/// The key store of a database.
pub struct PostgresKeyStore {
    pool: PgPool,
}

impl PostgresKeyStore {
    /// Opens the store and creates its tables if they are missing. It has connections of its own, to
    /// the database of `pool`: a registration must not wait for queries.
    ///
    /// # Errors
    /// If the database does not answer or refuses.
    pub async fn open(pool: PgPool) -> Result<Self, KeyError> {
        let pool = database::beside(&pool, &settings());
        let mut transaction = database::begin(&pool).await.map_err(unavailable)?;
        sqlx::query("select pg_advisory_xact_lock($1)")
            .bind(CREATE_LOCK)
            .execute(&mut *transaction)
            .await
            .map_err(unavailable)?;
        sqlx::raw_sql(
            "create schema if not exists keys;
             create table if not exists keys.customer_key (subject uuid primary key, key bytea);
             create table if not exists keys.secret (name text primary key, key bytea not null);",
        )
        .execute(&mut *transaction)
        .await
        .map_err(unavailable)?;
        transaction.commit().await.map_err(unavailable)?;
        Ok(Self { pool })
    }

    /// The key that `insert` names, stored now if it does not exist. The last parameter of `insert`
    /// is the new key.
    async fn find_or_create(
        &self,
        insert: Query<'_, Postgres, PgArguments>,
    ) -> Result<Key, KeyError> {
        let row = insert.bind(fresh()?).fetch_one(&self.pool).await.map_err(unavailable)?;
        stored(&row)?.ok_or(KeyError::Destroyed)
    }
}

fn settings() -> PoolSettings {
    let application_name = "orderlog keys".to_owned();
    PoolSettings { application_name, max_connections: 4, ..PoolSettings::default() }
}

fn unavailable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> KeyError {
    KeyError::Unavailable(error.into())
}

fn fresh() -> Result<Vec<u8>, KeyError> {
    let key = Key::random().map_err(|error| unavailable(error.to_string()))?;
    Ok(key.as_bytes().to_vec())
}

fn key(bytes: Vec<u8>) -> Result<Key, KeyError> {
    let bytes = bytes.try_into().map_err(|_| unavailable("a stored key does not have 32 bytes"))?;
    Ok(Key::new(bytes))
}

/// The column `key` of a row.
fn stored(row: &PgRow) -> Result<Option<Key>, KeyError> {
    let bytes: Option<Vec<u8>> = row.try_get("key").map_err(unavailable)?;
    bytes.map(key).transpose()
}

#[async_trait]
impl KeyStore for PostgresKeyStore {
    async fn create(&self, subject: Uuid) -> Result<Key, KeyError> {
        self.find_or_create(sqlx::query(CREATE_KEY).bind(subject)).await
    }

    async fn get(&self, subjects: &[Uuid]) -> Result<Vec<Option<Key>>, KeyError> {
        let rows = sqlx::query(
            "select key from unnest($1::uuid[]) with ordinality as asked (subject, place)
             left join keys.customer_key using (subject) order by place",
        )
        .bind(subjects)
        .fetch_all(&self.pool)
        .await
        .map_err(unavailable)?;
        rows.iter().map(stored).collect()
    }

    async fn destroy(&self, subject: Uuid) -> Result<(), KeyError> {
        sqlx::query(
            "insert into keys.customer_key (subject, key) values ($1, null)
             on conflict (subject) do update set key = null",
        )
        .bind(subject)
        .execute(&self.pool)
        .await
        .map_err(unavailable)?;
        // Until a vacuum the dead row, with the key, is still in the table's file.
        sqlx::query("vacuum (truncate false) keys.customer_key")
            .execute(&self.pool)
            .await
            .map_err(unavailable)?;
        Ok(())
    }

    async fn secret(&self, name: &str) -> Result<Key, KeyError> {
        self.find_or_create(sqlx::query(CREATE_SECRET).bind(name)).await
    }
}
