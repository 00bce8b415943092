//! Rows in the binary format of `COPY`.

use events::Timestamp;
use sqlx::{PgConnection, postgres::PgCopyIn};

/// Bytes sent to the server at once.
const PIECE: usize = 256 * 1024;

/// 2000-01-01, the epoch of `PostgreSQL`'s timestamps, in µs since 1970.
const EPOCH_2000: i64 = 946_684_800_000_000;

/// The signature, no flags, no header extension.
const HEAD: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// Encoded rows, one after another. A row begins with its number of columns; its columns follow in
/// order.
#[derive(Default)]
pub(crate) struct Rows(Vec<u8>);

impl Rows {
    /// Begins a row with this number of columns.
    pub fn begin(&mut self, columns: usize) {
        let columns = i16::try_from(columns).unwrap_or(i16::MAX);
        self.0.extend_from_slice(&columns.to_be_bytes());
    }

    /// Adds the next column in the binary form of its type.
    pub fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(&length(bytes.len()));
        self.0.extend_from_slice(bytes);
    }

    /// Adds a null as the next column.
    pub fn null(&mut self) {
        self.0.extend_from_slice(&(-1_i32).to_be_bytes());
    }

    /// Adds a `timestamptz` as the next column.
    pub fn time(&mut self, time: Timestamp) {
        self.put(&time.timestamp_micros().saturating_sub(EPOCH_2000).to_be_bytes());
    }

    /// Adds the next column, which `write` encodes in place.
    pub fn put_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let at = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        write(&mut self.0);
        let len = length(self.0.len() - at - 4);
        self.0[at..at + 4].copy_from_slice(&len);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// The length of a column. A column is far below 2 GiB, because a batch of the log is.
fn length(len: usize) -> [u8; 4] {
    i32::try_from(len).unwrap_or(i32::MAX).to_be_bytes()
}

/// A running `COPY`. Dropping it fails the statement.
pub(crate) struct Copying<'a> {
    into: PgCopyIn<&'a mut PgConnection>,
    /// Rows that are not sent yet.
    pub rows: Rows,
}

impl<'a> Copying<'a> {
    pub async fn begin(
        connection: &'a mut PgConnection,
        statement: &str,
    ) -> Result<Self, sqlx::Error> {
        let into = connection.copy_in_raw(statement).await?;
        let mut bytes = Vec::with_capacity(PIECE + PIECE / 4);
        bytes.extend_from_slice(HEAD);
        Ok(Self { into, rows: Rows(bytes) })
    }

    /// Sends the rows once there are enough of them for one message.
    pub async fn pass_on(&mut self) -> Result<(), sqlx::Error> {
        if self.rows.len() >= PIECE {
            self.into.send(self.rows.0.as_slice()).await?;
            self.rows.clear();
        }
        Ok(())
    }

    /// Sends rows that were encoded earlier.
    pub async fn send(&mut self, rows: &Rows) -> Result<(), sqlx::Error> {
        for piece in rows.0.chunks(PIECE) {
            self.rows.0.extend_from_slice(piece);
            self.pass_on().await?;
        }
        Ok(())
    }

    /// Sends the remaining rows. Returns how many rows the server took.
    pub async fn finish(mut self) -> Result<u64, sqlx::Error> {
        self.rows.0.extend_from_slice(&(-1_i16).to_be_bytes());
        self.into.send(self.rows.0.as_slice()).await?;
        self.into.finish().await
    }
}
