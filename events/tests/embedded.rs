//! The embedded log: the contract suite, the files it refuses, and crashes.

#![allow(clippy::unwrap_used)]

use async_trait::async_trait;
use events::environment::System;
use events::log::contract::{self, Harness, PARTITIONS};
use events::log::embedded::EmbeddedLog;
use events::log::{
    AppendError, Batch, BatchReader, Claim, ConnectError, Cursor, EventLog, MAX_BATCH_RECORDS,
    ReadError, Record, Writer, opening::open,
};
use events::{Environment, Offset, Partition};
use rusqlite::Connection;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use uuid::Uuid;

const P: Partition = Partition(0);

struct Embedded {
    dir: TempDir,
    log: Mutex<Option<Arc<EmbeddedLog>>>,
}

impl Embedded {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap(), log: Mutex::default() }
    }

    fn writing(&self) -> Arc<EmbeddedLog> {
        let open = || Arc::new(EmbeddedLog::open(self.dir.path(), Some(PARTITIONS)).unwrap());
        Arc::clone(self.log.lock().unwrap().get_or_insert_with(open))
    }
}

#[async_trait]
impl Harness for Embedded {
    async fn log(&self) -> Arc<dyn EventLog> {
        self.writing()
    }

    async fn observer(&self) -> Arc<dyn EventLog> {
        self.writing();
        Arc::new(EmbeddedLog::open_read_only(self.dir.path()).unwrap())
    }

    async fn kill(&self) {
        *self.log.lock().unwrap() = None;
    }

    async fn tear(&self, partition: Partition, batch: &Batch, keep: usize) {
        self.writing().tear(partition, batch, keep).await.unwrap();
    }
}

mod suite {
    events::log_contract!(Some(super::Embedded::new()));
}

fn record(len: usize) -> Record {
    contract::record(&"x".repeat(len))
}

fn batch(writer: &Writer, len: usize) -> Batch {
    writer.batch(System::new().uuid(), (0..len).map(|_| record(8)).collect())
}

async fn writer(log: &EmbeddedLog) -> Writer {
    let environment = System::new();
    let node = environment.uuid();
    open(log, &environment, P, node, Cursor::START, |_| {}).await.unwrap().0
}

/// The ids of all batches in the partition, without claims.
async fn read(log: &EmbeddedLog) -> Result<Vec<Uuid>, ReadError> {
    let mut reader = BatchReader::open(log, P, Cursor::START).await?;
    let mut read = Vec::new();
    loop {
        let chunk = reader.next().await?;
        let batches = chunk.batches.iter().filter(|batch| Claim::of(batch).is_none());
        read.extend(batches.map(|batch| batch.id));
        if chunk.at_end {
            return Ok(read);
        }
    }
}

/// Writes a log with some batches and closes it.
async fn written(dir: &Path, batches: usize) -> Vec<Uuid> {
    let log = EmbeddedLog::open(dir, Some(2)).unwrap();
    let mut writer = writer(&log).await;
    let mut ids = Vec::new();
    for len in (1..4).cycle().take(batches) {
        let batch = batch(&writer, len);
        writer.append(&batch).await.unwrap();
        ids.push(batch.id);
    }
    log.close().await;
    ids
}

fn tamper(dir: &Path, sql: &str) {
    let changed = Connection::open(dir.join("log.sqlite")).unwrap().execute(sql, []).unwrap();
    assert!(changed > 0, "{sql}");
}

fn refusal(dir: &Path, partitions: Option<u32>) -> String {
    match EmbeddedLog::open(dir, partitions) {
        Err(ConnectError::Refused { reason, .. } | ConnectError::Damaged { reason, .. }) => reason,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("the log opened"),
    }
}

#[tokio::test]
async fn one_process_writes_at_a_time() {
    let dir = TempDir::new().unwrap();
    let log = EmbeddedLog::open(dir.path(), None).unwrap();
    assert_eq!(log.partitions(), 12);
    let second = EmbeddedLog::open(dir.path(), None);
    assert!(matches!(second, Err(ConnectError::InUse { .. })));
    log.close().await;
    EmbeddedLog::open(dir.path(), None).unwrap();
}

#[tokio::test]
async fn a_closed_log_finishes_accepted_appends_and_refuses_new_ones() {
    let dir = TempDir::new().unwrap();
    let log = EmbeddedLog::open(dir.path(), None).unwrap();
    let mut writer = writer(&log).await;
    let (first, second) = (batch(&writer, 1), batch(&writer, 1));
    let (appended, ()) = tokio::join!(writer.append(&first), log.close());
    appended.unwrap();
    let refused = writer.append(&second).await;
    assert!(matches!(refused, Err(AppendError::NotApplied(_))), "{refused:?}");
    assert!(log.fence(P, 0).await.is_err());
    log.close().await;
    assert_eq!(read(&log).await.unwrap(), [first.id], "the log can still be read");
}

#[tokio::test]
async fn another_number_of_partitions_is_refused() {
    let dir = TempDir::new().unwrap();
    written(dir.path(), 1).await;
    assert!(refusal(dir.path(), Some(3)).contains("2 partitions, not 3"));
    assert_eq!(EmbeddedLog::open(dir.path(), None).unwrap().partitions(), 2);
    let empty = TempDir::new().unwrap();
    assert!(refusal(empty.path(), Some(0)).contains("1 to"));
}

#[tokio::test]
async fn another_format_is_refused() {
    let dir = TempDir::new().unwrap();
    written(dir.path(), 1).await;
    tamper(dir.path(), "UPDATE meta SET value = 2 WHERE key = 'format'");
    assert!(refusal(dir.path(), None).contains("format"));
    let read = EmbeddedLog::open_read_only(dir.path());
    assert!(matches!(read, Err(ConnectError::Refused { .. })));
}

#[tokio::test]
async fn missing_history_is_refused() {
    for lost in [
        "DELETE FROM p0 WHERE offset = 0",
        "DELETE FROM p0 WHERE offset = (SELECT max(offset) FROM p0)",
        "DELETE FROM p0",
    ] {
        let dir = TempDir::new().unwrap();
        written(dir.path(), 3).await;
        tamper(dir.path(), lost);
        assert!(refusal(dir.path(), None).contains("partition 0 is missing"), "{lost}");
        std::fs::remove_file(dir.path().join("log.mark")).unwrap();
        assert!(refusal(dir.path(), None).contains("partition 0 is missing"), "{lost}");
    }
}

#[tokio::test]
async fn reading_damaged_rows_fails() {
    let middle = "(SELECT offset FROM p0 ORDER BY offset LIMIT 1 OFFSET 2)";
    for damage in [
        format!("UPDATE p0 SET batch = CAST(batch || x'00' AS BLOB) WHERE offset = {middle}"),
        format!("UPDATE p0 SET batch = 'text' WHERE offset = {middle}"),
        format!("UPDATE p0 SET crc = crc + 1 WHERE offset = {middle}"),
        format!("UPDATE p0 SET offset = offset + 1 WHERE offset = {middle}"),
        format!("UPDATE p0 SET next = next - 1 WHERE offset = {middle}"),
        format!("DELETE FROM p0 WHERE offset = {middle}"),
    ] {
        let dir = TempDir::new().unwrap();
        written(dir.path(), 5).await;
        tamper(dir.path(), &damage);
        let log = EmbeddedLog::open(dir.path(), None).unwrap();
        let read = read(&log).await;
        assert!(matches!(read, Err(ReadError::Damaged { .. })), "{damage}: {read:?}");
    }
}

#[tokio::test]
async fn too_large_a_batch_is_not_applied() {
    let dir = TempDir::new().unwrap();
    let log = EmbeddedLog::open(dir.path(), None).unwrap();
    for records in [
        vec![],
        (0..=MAX_BATCH_RECORDS).map(|_| record(1)).collect(),
        (0..200).map(|_| record(10_000)).collect(),
    ] {
        let mut writer = writer(&log).await;
        let batch = writer.batch(System::new().uuid(), records);
        let refused = writer.append(&batch).await;
        assert!(matches!(refused, Err(AppendError::NotApplied(_))), "{refused:?}");
    }
    assert_eq!(read(&log).await.unwrap(), Vec::<Uuid>::new());
}

/// A failed insert rolls back its whole transaction, and the log continues.
#[tokio::test]
async fn a_transaction_that_rolls_back_applies_nothing() {
    let dir = TempDir::new().unwrap();
    let log = EmbeddedLog::open(dir.path(), None).unwrap();
    let mut failing = writer(&log).await;
    let other = Connection::open(dir.path().join("log.sqlite")).unwrap();
    let veto = "CREATE TRIGGER veto BEFORE INSERT ON p0 BEGIN SELECT RAISE(ABORT, 'no'); END";
    other.execute_batch(veto).unwrap();
    let refused = failing.append(&batch(&failing, 2)).await;
    assert!(matches!(refused, Err(AppendError::NotApplied(_))), "{refused:?}");
    other.execute_batch("DROP TRIGGER veto").unwrap();
    let mut next = writer(&log).await;
    let batch = batch(&next, 1);
    next.append(&batch).await.unwrap();
    assert_eq!(read(&log).await.unwrap(), [batch.id]);
}

/// Appends more than the tail keeps, so that the beginning is read from the file in many chunks.
#[tokio::test]
async fn a_reader_far_behind_catches_up_while_others_write() {
    const BATCHES: usize = 300;
    let dir = TempDir::new().unwrap();
    let log = EmbeddedLog::open(dir.path(), Some(1)).unwrap();
    let mut writer = writer(&log).await;
    let environment = System::new();
    let large = |writer: &Writer| {
        writer.batch(environment.uuid(), (0..20).map(|_| record(8_000)).collect())
    };
    let mut appended = Vec::new();
    for _ in 0..BATCHES {
        let batch = large(&writer);
        writer.append(&batch).await.unwrap();
        appended.push(batch.id);
    }
    let write = async {
        let mut ids = Vec::new();
        for _ in 0..20 {
            let batch = large(&writer);
            writer.append(&batch).await.unwrap();
            ids.push(batch.id);
        }
        ids
    };
    let (read_meanwhile, more) = tokio::join!(read(&log), write);
    appended.extend(more);
    let read_meanwhile = read_meanwhile.unwrap();
    assert!(read_meanwhile.len() >= BATCHES && appended.starts_with(&read_meanwhile));
    assert_eq!(read(&log).await.unwrap(), appended);
}

#[tokio::test]
async fn a_read_only_log_reads_everything_and_cannot_write() {
    let dir = TempDir::new().unwrap();
    assert!(matches!(
        EmbeddedLog::open_read_only(dir.path()),
        Err(ConnectError::Unavailable { .. })
    ));
    let ids = written(dir.path(), 4).await;
    let reading = EmbeddedLog::open_read_only(dir.path()).unwrap();
    assert_eq!(read(&reading).await.unwrap(), ids);
    assert!(reading.fence(P, 0).await.is_err());
    // Another process may write meanwhile, and its appends can be read at once.
    let log = EmbeddedLog::open(dir.path(), None).unwrap();
    let mut writer = writer(&log).await;
    for _ in 0..20 {
        writer.append(&batch(&writer, 1)).await.unwrap();
        assert_eq!(reading.end(P).await.unwrap(), log.end(P).await.unwrap());
        assert_eq!(read(&reading).await.unwrap(), read(&log).await.unwrap());
    }
}

#[tokio::test]
async fn offsets_have_gaps() {
    let dir = TempDir::new().unwrap();
    let log = EmbeddedLog::open(dir.path(), None).unwrap();
    let mut writer = writer(&log).await;
    let mut last = Offset(0);
    for len in [1, 2, 3, 4] {
        let offsets = writer.append(&batch(&writer, len)).await.unwrap();
        assert!(offsets[0].0 > last.0 + 1, "{last} and {offsets:?}");
        last = offsets[len - 1];
    }
}

const CHILD_DIR: &str = "ORDERLOG_TEST_LOG_DIR";

/// Not a test: this is the process that the next test kills. It prints each acknowledged batch.
#[tokio::test]
#[allow(
    clippy::disallowed_methods,
    reason = "the parent test passes the directory to the child in an environment variable"
)]
async fn child_that_appends_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let log = EmbeddedLog::open(Path::new(&dir), Some(1)).unwrap();
    let mut writer = writer(&log).await;
    loop {
        let batch = batch(&writer, 3);
        writer.append(&batch).await.unwrap();
        println!("acknowledged {}", batch.id);
    }
}

/// After each of several `kill -9`, every acknowledged batch is there, in order, and the lock is
/// free.
#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let dir = TempDir::new().unwrap();
    let mut acknowledged: Vec<Uuid> = Vec::new();
    for round in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child_that_appends_until_it_is_killed", "--exact", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ids = lines.map_while(Result::ok).filter_map(|line| {
            line.split_once("acknowledged ").and_then(|(_, id)| id.parse::<Uuid>().ok())
        });
        acknowledged.extend(ids.take(50 + 37 * round));
        child.kill().unwrap();
        child.wait().unwrap();

        let log = EmbeddedLog::open(dir.path(), None).unwrap();
        let present = read(&log).await.unwrap();
        let mut rest = present.iter();
        assert!(acknowledged.iter().all(|id| rest.any(|present| present == id)));
        log.close().await;
    }
}
