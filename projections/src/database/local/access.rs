//! How the program reaches the cluster: over loopback, with the password in the data directory.

use std::path::Path;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};

use super::cluster::{DATABASE, USER};
use super::error::LocalError;

/// A database that every cluster has.
const FIRST_DATABASE: &str = "postgres";

/// A server that does not answer a query within this time counts as not answering.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// SQLSTATE of a wrong password.
const WRONG_PASSWORD: &str = "28P01";

/// The credentials of a cluster. Not `Debug`, because they are secret.
pub(super) struct Access {
    password: String,
}

impl Access {
    pub(super) fn new(password: String) -> Self {
        Self { password }
    }

    pub(super) fn password(&self) -> &str {
        &self.password
    }

    pub(super) fn options(&self, port: u16, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(port)
            .username(USER)
            .password(&self.password)
            .database(database)
            .ssl_mode(PgSslMode::Disable)
    }

    pub(super) fn url(&self, port: u16) -> String {
        let password = &self.password;
        format!("postgres://{USER}:{password}@127.0.0.1:{port}/{DATABASE}?sslmode=disable")
    }

    /// Whether the server of this cluster answers on a port. A wrong password is an error, because
    /// waiting would not help.
    pub(super) async fn answers(&self, port: u16, cluster: &Path) -> Result<bool, LocalError> {
        let question = async {
            let mut connection = self.options(port, FIRST_DATABASE).connect().await?;
            let folder: String = sqlx::query_scalar("select current_setting('data_directory')")
                .fetch_one(&mut connection)
                .await?;
            connection.close().await?;
            Ok::<_, sqlx::Error>(folder)
        };
        match tokio::time::timeout(ANSWER_TIMEOUT, question).await {
            Ok(Ok(folder)) => Ok(Path::new(&folder) == cluster),
            Ok(Err(source)) if has_code(&source, WRONG_PASSWORD) => {
                Err(LocalError::Password(source))
            }
            Ok(Err(_)) | Err(_) => Ok(false),
        }
    }

    /// Makes the program's database if it is missing.
    pub(super) async fn ensure_database(&self, port: u16) -> Result<(), LocalError> {
        let there = async {
            let mut connection = self.options(port, FIRST_DATABASE).connect().await?;
            sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
                .bind(DATABASE)
                .fetch_one(&mut connection)
                .await
        };
        if there.await.map_err(create_failed)? {
            return Ok(());
        }
        self.create_database(port, DATABASE).await.map_err(create_failed)
    }

    /// Makes a database, after checking that the name needs no quoting.
    pub(super) async fn create_plain(&self, port: u16, name: &str) -> Result<(), LocalError> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if name.is_empty() || name.len() > 63 || !name.chars().all(plain) {
            return Err(LocalError::Name(name.to_owned()));
        }
        self.create_database(port, name).await.map_err(create_failed)
    }

    async fn create_database(&self, port: u16, name: &str) -> Result<(), sqlx::Error> {
        let mut connection: PgConnection = self.options(port, FIRST_DATABASE).connect().await?;
        sqlx::raw_sql(AssertSqlSafe(format!(r#"create database "{name}""#)))
            .execute(&mut connection)
            .await?;
        connection.close().await
    }
}

fn create_failed(source: sqlx::Error) -> LocalError {
    LocalError::Sql { what: "create a private database", source }
}

fn has_code(error: &sqlx::Error, code: &str) -> bool {
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|found| found == code)
}
