//! The SQLite file. It has a table per partition with a row per batch, and a table `meta` for the
//! whole log.
//!
//! Each row contains the offset at which the next batch begins, and `ends` in `meta` contains the
//! end of each partition, written in the same transaction. So a missing row is always noticed. The
//! [mark](super::mark) reveals whole transactions missing at the end.

use super::EmbeddedFault;
use super::mark::{self, Edge, Mark};
use crate::log::{ConnectError, LogFault, RawRecord, ReadError, frame};
use crate::{Offset, Partition};
use bytes::Bytes;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, ffi, params};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The version of the file's format: its tables, the frames, the checksum.
const FORMAT: u32 = 1;

const DEFAULT_PARTITIONS: u32 = 12;

/// An upper bound, because each partition is a table.
const MAX_PARTITIONS: u32 = 1_024;

/// The number of 4 KiB pages in the write-ahead log at which SQLite moves them into the database,
/// which costs two more syncs.
const CHECKPOINT_PAGES: u32 = 4_000;

/// The size to which SQLite truncates the write-ahead log after it has grown, in bytes.
const WAL_LIMIT: u32 = 64 << 20;

/// How long to wait for a lock of another connection, such as one that recovers the file after a
/// kill.
const BUSY: Duration = Duration::from_secs(5);

/// The limits of a chunk, in records and in bytes.
pub(super) const CHUNK: (usize, usize) = (2_000, 1 << 20);

/// The path of the log in `dir`.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join("log.sqlite")
}

struct Site<'a>(&'a Path);

impl Site<'_> {
    fn name(&self) -> String {
        path(self.0).display().to_string()
    }

    fn refused(&self, reason: impl Into<String>) -> ConnectError {
        ConnectError::Refused { log: self.name(), reason: reason.into() }
    }

    fn damaged(&self, reason: impl Into<String>) -> ConnectError {
        ConnectError::Damaged { log: self.name(), reason: reason.into() }
    }

    /// Sorts an error of SQLite: is the log damaged or only unavailable?
    fn fault(&self) -> impl Fn(rusqlite::Error) -> ConnectError {
        |error| {
            if is_damage(&error) {
                self.damaged(error.to_string())
            } else {
                self.unavailable()(error)
            }
        }
    }

    fn unavailable<E: Into<LogFault>>(&self) -> impl Fn(E) -> ConnectError {
        |source| ConnectError::Unavailable { log: self.name(), source: source.into() }
    }
}

/// The log, opened for writing.
pub(super) struct WritableLog {
    pub connection: Connection,
    /// Keeps the lock file locked as long as the connection may write.
    pub lock: File,
    pub mark: Mark,
    pub edges: Vec<Edge>,
}

/// Opens the file for writing, or creates it. A file that is refused stays unchanged, so that it
/// can be repaired.
pub(super) fn open_to_write(
    dir: &Path,
    partitions: Option<u32>,
) -> Result<WritableLog, ConnectError> {
    let site = Site(dir);
    std::fs::create_dir_all(dir).map_err(site.unavailable())?;
    let lock = File::create(dir.join("log.lock")).map_err(site.unavailable())?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(ConnectError::InUse { log: site.name() }),
        Err(TryLockError::Error(error)) => return Err(site.unavailable()(error)),
    }
    let marked = marked(dir)?;
    let mut connection = Connection::open(path(dir)).map_err(site.fault())?;
    keep_wal(&connection, true).map_err(site.fault())?;
    prepare(&connection).map_err(site.fault())?;
    create(&mut connection, dir, partitions)?;
    let edges = check(&connection, dir, partitions, marked.as_deref())?;
    if marked.is_none() && edges.iter().any(|edge| edge.end > Offset::START) {
        tracing::warn!(
            log = site.name(),
            "the log has no mark: a loss at its end cannot be noticed"
        );
    }
    keep_wal(&connection, false).map_err(site.fault())?;
    let mark = Mark::open(dir, &edges).map_err(site.unavailable())?;
    sync_directory(dir).map_err(site.unavailable())?;
    Ok(WritableLog { connection, lock, mark, edges })
}

/// Opens the file for reading. Returns a connection and the end of each partition.
pub(super) fn open_to_read(dir: &Path) -> Result<(Connection, Vec<Offset>), ConnectError> {
    let site = Site(dir);
    // Read the mark before the file: a writer that continues meanwhile only adds to the file.
    let marked = marked(dir)?;
    let connection = connect_to_read(dir).map_err(site.fault())?;
    let edges = check(&connection, dir, None, marked.as_deref())?;
    Ok((connection, mark::ends(&edges)))
}

/// Reads the mark. If it records any history, the file must exist: SQLite would create a missing
/// file, and discard the write-ahead log of an empty one.
fn marked(dir: &Path) -> Result<Option<Vec<Edge>>, ConnectError> {
    let site = Site(dir);
    let marked = mark::read(dir).map_err(site.unavailable())?;
    let told = marked.iter().flatten().any(|edge| edge.end > Offset::START);
    let is_there = std::fs::metadata(path(dir)).is_ok_and(|file| file.len() > 0);
    if told && !is_there {
        return Err(site
            .damaged("the file is missing or empty, but its mark says that the log has history"));
    }
    Ok(marked)
}

/// With `keep`, closing the connection leaves the write-ahead log as it is.
fn keep_wal(connection: &Connection, keep: bool) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep).map(drop)
}

/// Opens a read-only connection.
pub(super) fn connect_to_read(dir: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path(dir), flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", WAL_LIMIT)?;
    connection.set_prepared_statement_cache_capacity(MAX_PARTITIONS as usize + 8);
    Ok(())
}

/// Syncs the directory and its parent, because the file's name must survive a power cut too.
fn sync_directory(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()?;
    match dir.canonicalize()?.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Creates the tables if the file has none, in one transaction.
fn create(
    connection: &mut Connection,
    dir: &Path,
    partitions: Option<u32>,
) -> Result<(), ConnectError> {
    let site = Site(dir);
    let count = "SELECT count(*) FROM sqlite_schema";
    let existing: u32 = connection.query_one(count, [], |row| row.get(0)).map_err(site.fault())?;
    if existing > 0 {
        return Ok(());
    }
    let partitions = partitions.unwrap_or(DEFAULT_PARTITIONS);
    if !(1..=MAX_PARTITIONS).contains(&partitions) {
        return Err(
            site.refused(format!("the number of partitions must be from 1 to {MAX_PARTITIONS}"))
        );
    }
    let meta = "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;".to_owned();
    let tables = (0..partitions).map(|partition| {
        format!(
            "CREATE TABLE p{partition} (offset INTEGER PRIMARY KEY, next INTEGER NOT NULL, \
             crc INTEGER NOT NULL, batch BLOB NOT NULL);"
        )
    });
    let sql: String = std::iter::once(meta).chain(tables).collect();
    let ends = vec![Offset::START; partitions as usize];
    let create = |connection: &mut Connection| -> rusqlite::Result<()> {
        let transaction = connection.transaction()?;
        transaction.execute_batch(&sql)?;
        let mut insert = transaction.prepare("INSERT INTO meta VALUES (?1, ?2)")?;
        insert.execute(params!["format", FORMAT])?;
        insert.execute(params!["partitions", partitions])?;
        insert.execute(params!["ends", pack_ends(&ends)])?;
        drop(insert);
        transaction.commit()
    };
    create(connection).map_err(site.fault())
}

/// Refuses a file of another format or with missing history. Returns the edge of each partition.
fn check(
    connection: &Connection,
    dir: &Path,
    partitions: Option<u32>,
    marked: Option<&[Edge]>,
) -> Result<Vec<Edge>, ConnectError> {
    let site = Site(dir);
    let number = |key: &str| -> Result<Option<u32>, ConnectError> {
        connection
            .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0))
            .optional()
            .map_err(site.fault())
    };
    let format = number("format")?;
    if format != Some(FORMAT) {
        return Err(site.refused(format!("its format is {format:?} but must be {FORMAT}")));
    }
    let found = number("partitions")?.unwrap_or_default();
    if let Some(asked) = partitions
        && asked != found
    {
        return Err(site.refused(format!(
            "it has {found} partitions, not {asked}; the number is fixed when a log is created"
        )));
    }
    // In one transaction, so that a concurrent writer does not look like damage.
    let transaction = connection.unchecked_transaction().map_err(site.fault())?;
    let ends = read_ends(&transaction).map_err(site.fault())?;
    if ends.len() != found as usize {
        return Err(site.damaged("its list of partition ends cannot be decoded"));
    }
    if marked.is_some_and(|marked| marked.len() != ends.len()) {
        return Err(site.damaged("its mark belongs to a log with another number of partitions"));
    }
    let mut edges = Vec::with_capacity(ends.len());
    for (partition, &end) in ends.iter().enumerate() {
        let behind = |before| last(&transaction, partition, before).map_err(site.fault());
        let first = first(&transaction, partition).map_err(site.fault())?;
        let last = behind(end)?;
        let is_written = end > Offset::START;
        if first != is_written.then_some(Offset::START)
            || last.map(|edge| edge.end) != is_written.then_some(end)
        {
            return Err(
                site.damaged(format!("part of the history of partition {partition} is missing"))
            );
        }
        if let Some(&told) = marked.and_then(|marked| marked.get(partition))
            && told != Edge::START
            && behind(told.end)? != Some(told)
        {
            return Err(site.damaged(lost(partition, end, told.end)));
        }
        edges.push(last.unwrap_or(Edge::START));
    }
    Ok(edges)
}

fn lost(partition: usize, end: Offset, told: Offset) -> String {
    if end < told {
        format!(
            "partition {partition} ends at {end}, but everything up to {told} was acknowledged: the \
             end of the write-ahead log is cut off or damaged"
        )
    } else {
        format!(
            "partition {partition} holds another history before {told} than the one acknowledged"
        )
    }
}

/// The offset of the first batch of a partition.
fn first(connection: &Connection, partition: usize) -> rusqlite::Result<Option<Offset>> {
    let first = format!("SELECT offset FROM p{partition} ORDER BY offset LIMIT 1");
    connection.query_row(&first, [], |row| row.get(0).map(Offset)).optional()
}

/// The edge after the last batch of a partition that begins before `before`.
fn last(
    connection: &Connection,
    partition: usize,
    before: Offset,
) -> rusqlite::Result<Option<Edge>> {
    let last = format!(
        "SELECT next, crc FROM p{partition} WHERE offset < ?1 ORDER BY offset DESC LIMIT 1"
    );
    let edge = |row: &rusqlite::Row<'_>| Ok(Edge { end: Offset(row.get(0)?), crc: row.get(1)? });
    connection.query_row(&last, [before.0], edge).optional()
}

fn pack_ends(ends: &[Offset]) -> Vec<u8> {
    ends.iter().flat_map(|end| end.0.to_be_bytes()).collect()
}

/// Reads the end of each partition.
pub(super) fn read_ends(connection: &Connection) -> rusqlite::Result<Vec<Offset>> {
    let mut read = connection.prepare_cached("SELECT value FROM meta WHERE key = 'ends'")?;
    let packed: Vec<u8> = read.query_one([], |row| row.get(0))?;
    let (ends, _) = packed.as_chunks::<8>();
    Ok(ends.iter().map(|end| Offset(i64::from_be_bytes(*end))).collect())
}

/// Writes the end of each partition, in the same transaction as the batches.
pub(super) fn write_ends(connection: &Connection, ends: &[Offset]) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE meta SET value = ?1 WHERE key = 'ends'")?
        .execute([pack_ends(ends)])?;
    Ok(())
}

/// A batch as stored.
#[derive(Clone)]
pub(super) struct BatchRow {
    /// The offset of its first record; the others follow.
    pub first: Offset,
    /// The offset at which the next batch begins: after this one and its gap.
    pub next: Offset,
    /// The checksum of the frames, the partition and the offsets.
    pub crc: u32,
    pub frames: Bytes,
}

/// Computes the part of the checksum that needs no offsets, so that the caller's thread can do it.
pub(super) fn begin_checksum(frames: &[u8]) -> crc32fast::Hasher {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(frames);
    hasher
}

/// Completes the checksum of a row with its place, because an intact batch in a wrong place is
/// damage too.
fn finish_checksum(
    mut hasher: crc32fast::Hasher,
    partition: Partition,
    first: Offset,
    next: Offset,
) -> u32 {
    hasher.update(&partition.0.to_be_bytes());
    hasher.update(&first.0.to_be_bytes());
    hasher.update(&next.0.to_be_bytes());
    hasher.finalize()
}

/// Inserts a row at the end of its table.
pub(super) fn insert(
    connection: &Connection,
    partition: Partition,
    row: &BatchRow,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(&format!("INSERT INTO p{partition} VALUES (?1, ?2, ?3, ?4)"))?
        .execute(params![row.first.0, row.next.0, row.crc, &*row.frames])?;
    Ok(())
}

impl BatchRow {
    /// Makes the row of a batch. `checksum` was [begun](begin_checksum) with its frames.
    pub fn new(
        partition: Partition,
        (first, next): (Offset, Offset),
        frames: Bytes,
        checksum: crc32fast::Hasher,
    ) -> Self {
        let crc = finish_checksum(checksum, partition, first, next);
        Self { first, next, crc, frames }
    }

    /// Adds the records at or after `from` to `records`.
    pub fn decode(&self, from: Offset, records: &mut Vec<RawRecord>) -> Result<(), LogFault> {
        // This adapter assigns the offsets, so it may calculate with them.
        let offset_of = |index| Offset(self.first.0.saturating_add_unsigned(index as u64));
        let decoded = frame::decode(self.frames.clone(), offset_of)?;
        if decoded.last().is_none_or(|last| last.offset >= self.next) {
            return Err(EmbeddedFault::Missing.into());
        }
        records.extend(decoded.into_iter().filter(|raw| raw.offset >= from));
        Ok(())
    }
}

/// Reads a chunk of records from `from`, which is before `end`. Returns them and the offset at
/// which reading continues.
pub(super) fn read(
    connection: &Connection,
    partition: Partition,
    from: Offset,
    end: Offset,
) -> Result<(Vec<RawRecord>, Offset), ReadError> {
    let damaged = |offset, source: LogFault| ReadError::Damaged { partition, offset, source };
    let sql = format!(
        "SELECT offset, next, crc, batch FROM p{partition} WHERE offset >= \
         (SELECT max(offset) FROM p{partition} WHERE offset <= ?1) AND offset < ?2 ORDER BY offset"
    );
    let fault = |error| unreadable(error, partition, from);
    let mut statement = connection.prepare_cached(&sql).map_err(fault)?;
    let mut rows = statement.query([from.0, end.0]).map_err(fault)?;
    let (mut records, mut bytes, mut next) = (Vec::new(), 0, None);
    while let Some(columns) = rows.next().map_err(fault)? {
        let row = row(columns).map_err(fault)?;
        if row.first != next.unwrap_or(row.first) {
            return Err(damaged(row.first, EmbeddedFault::Missing.into()));
        }
        let checksum = begin_checksum(&row.frames);
        if finish_checksum(checksum, partition, row.first, row.next) != row.crc {
            return Err(damaged(row.first, EmbeddedFault::Checksum.into()));
        }
        row.decode(from, &mut records).map_err(|source| damaged(row.first, source))?;
        next = Some(row.next);
        bytes += row.frames.len();
        if records.len() >= CHUNK.0 || bytes >= CHUNK.1 {
            break;
        }
    }
    match next {
        Some(next) if next > from => Ok((records, next)),
        _ => Err(damaged(from, EmbeddedFault::Missing.into())),
    }
}

fn row(columns: &rusqlite::Row<'_>) -> rusqlite::Result<BatchRow> {
    let frames = columns.get_ref(3)?.as_blob()?;
    Ok(BatchRow {
        first: Offset(columns.get(0)?),
        next: Offset(columns.get(1)?),
        crc: columns.get(2)?,
        frames: Bytes::copy_from_slice(frames),
    })
}

/// Sorts an error: a busy or unreachable file may be read later, a damaged one may not.
pub(super) fn unreadable(
    error: rusqlite::Error,
    partition: Partition,
    offset: Offset,
) -> ReadError {
    if is_damage(&error) {
        return ReadError::Damaged { partition, offset, source: error.into() };
    }
    ReadError::Unavailable(error.into())
}

/// Whether the file is damaged: it is not a database, a table is missing, a column has the wrong
/// type, or a page is beyond the end of the file.
fn is_damage(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    match error.sqlite_error_code() {
        None | Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown) => {
            true
        }
        Some(_) => code == Some(ffi::SQLITE_IOERR_SHORT_READ),
    }
}
