//! Raw `SQLite`: rows with the size of an event, committed durably in batches, one after another.

use super::Rows;
use crate::{
    measure::{Measured, latencies, record},
    observed::Appended,
};
use anyhow::Result;
use rusqlite::Connection;
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Size of an event's ids, time, packed header and type in the embedded log, in bytes.
const ENVELOPE: usize = 165;

/// Commits batches for `duration`, with WAL and `synchronous=FULL` like the embedded log.
/// Operations are commits, events are rows.
///
/// # Errors
/// When `SQLite` fails.
pub async fn run(folder: &Path, rows: Rows, duration: Duration) -> Result<Measured> {
    let path = folder.join("floor.sqlite");
    tokio::task::spawn_blocking(move || commit(&path, rows, duration)).await?
}

fn commit(path: &PathBuf, rows: Rows, duration: Duration) -> Result<Measured> {
    let mut connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.execute("create table event (id integer primary key, event blob not null)", ())?;
    let event = vec![b'x'; ENVELOPE + rows.body_bytes];
    let (mut latency, mut appended) = (latencies()?, Appended::default());
    let started = Instant::now();
    while started.elapsed() < duration {
        let began = Instant::now();
        let transaction = connection.transaction()?;
        let mut insert = transaction.prepare_cached("insert into event (event) values (?)")?;
        for _ in 0..rows.batch {
            insert.execute([&event])?;
        }
        drop(insert);
        transaction.commit()?;
        record(&mut latency, began.elapsed());
        appended.batches += 1;
        appended.events += rows.batch as u64;
    }
    let took = started.elapsed();
    drop(connection);
    std::fs::remove_file(path)?;
    let operations = latency.len();
    Ok(Measured { operations, took, latency: Some(latency), appended, cpu: Duration::ZERO })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn counts_the_rows_it_commits() {
        let folder = tempfile::tempdir().unwrap();
        let rows = Rows { batch: 3, body_bytes: 10 };
        let measured = run(folder.path(), rows, Duration::from_millis(20)).await.unwrap();
        assert!(measured.operations > 0);
        assert_eq!(measured.appended.events, 3 * measured.operations);
    }
}
