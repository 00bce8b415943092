//! A partition's memory on disk, so that opening the partition need not read its whole log.
//!
//! It is only an optimisation. A snapshot that is missing, damaged, of another build or of another
//! log is ignored, and the log is read from its beginning. A snapshot contains what [`Memory`]
//! holds up to one record of the log. The shard checks that the log still has that record before it
//! uses the snapshot.

mod files;

use super::{
    dedupe::{Applied, Dedupe},
    memory::{Memory, Stream},
};
use async_trait::async_trait;
use chrono::TimeDelta;
use events::{
    Fingerprint, Offset, Partition, StreamId, StreamKind, Timestamp,
    log::{Cursor, EventLog, ReadError},
    planted::Bug,
};
use rmp_serde::{Deserializer, Serializer};
use serde::{Deserialize, Serialize};
use std::{
    error::Error,
    fmt,
    io::{self, Read, Write},
};
use uuid::Uuid;

pub use files::SnapshotFiles;

/// Changes with every line of the code that folds events, so a snapshot of another build is
/// ignored.
const CODE: &str = env!("ORDERLOG_FOLD");

/// Stores the newest snapshot of each partition.
#[async_trait]
pub trait SnapshotStore: fmt::Debug + Send + Sync + 'static {
    /// How many new events make another snapshot due. A partition with more streams than this waits
    /// for as many events as it has streams, so that the cost for each event does not grow with the
    /// partition.
    fn every(&self) -> usize {
        20_000
    }

    /// How many new events make a snapshot worthwhile when the program stops.
    fn worth_at_stop(&self) -> usize {
        self.every().min(1_000)
    }

    /// The partition's snapshot; `None` if there is no usable one.
    async fn load(&self, partition: Partition) -> Option<PartitionSnapshot>;

    /// Stores a snapshot in place of the previous one. A failure is logged, and the snapshot is
    /// dropped.
    async fn save(&self, snapshot: PartitionSnapshot);
}

/// A shard's memory of its partition.
#[derive(Debug)]
pub struct PartitionSnapshot(Memory);

/// Why bytes are not a usable snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// They do not decode.
    #[error("the snapshot cannot be decoded")]
    Damaged(#[source] Box<dyn Error + Send + Sync>),
    /// They were written by another build.
    #[error("the snapshot was written by another build")]
    OtherCode,
}

#[derive(Serialize, Deserialize)]
struct Header {
    partition: Partition,
    cursor: Cursor,
    last: Option<(Offset, Uuid)>,
    time: Timestamp,
    /// The age of the log, in microseconds.
    age: i64,
    streams: u64,
    applied: u64,
}

/// A stream as the file stores it.
#[derive(Serialize, Deserialize)]
struct StreamEntry<S> {
    id: (u8, Uuid),
    stream: S,
}

/// A remembered command, with the age of the log in microseconds.
type AppliedEntry = (i64, Uuid, (u8, Uuid), Fingerprint, u64);

impl PartitionSnapshot {
    /// A snapshot of `memory`; `None` if nothing has been folded yet.
    pub(super) fn of(memory: &Memory) -> Option<Self> {
        memory.last.map(|_| Self(memory.clone()))
    }

    /// The partition.
    pub fn partition(&self) -> Partition {
        self.0.partition
    }

    /// Writes the code's name, a header, the streams, the remembered commands, and a checksum of
    /// all of it.
    ///
    /// # Errors
    /// If `to` fails.
    pub fn write(&self, to: impl Write) -> io::Result<()> {
        let memory = &self.0;
        let nothing = Dedupe::default();
        let forgets = Bug::SnapshotForgetsCommands.is_planted();
        let dedupe = if forgets { &nothing } else { &memory.dedupe };
        let mut to = Summed::new(to);
        let mut serializer = Serializer::new(&mut to).with_struct_map();
        let header = Header {
            partition: memory.partition,
            cursor: memory.cursor,
            last: memory.last,
            time: memory.time,
            age: micros(memory.dedupe.age()),
            streams: memory.streams.len() as u64,
            applied: dedupe.len() as u64,
        };
        CODE.serialize(&mut serializer).map_err(io::Error::other)?;
        header.serialize(&mut serializer).map_err(io::Error::other)?;
        for (id, stream) in &memory.streams {
            let entry = StreamEntry { id: (id.kind as u8, id.id), stream };
            entry.serialize(&mut serializer).map_err(io::Error::other)?;
        }
        for (age, command_id, applied) in dedupe.iter() {
            let stream = (applied.stream.kind as u8, applied.stream.id);
            let entry: AppliedEntry =
                (micros(age), command_id, stream, applied.fingerprint, applied.version);
            entry.serialize(&mut serializer).map_err(io::Error::other)?;
        }
        to.end()
    }

    /// Reads what [`write`](Self::write) has written.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn read(from: impl Read) -> Result<Self, SnapshotError> {
        let mut from = Summed::new(from);
        let mut deserializer = Deserializer::new(&mut from);
        let code = String::deserialize(&mut deserializer).map_err(damaged)?;
        if code != CODE {
            return Err(SnapshotError::OtherCode);
        }
        let header = Header::deserialize(&mut deserializer).map_err(damaged)?;
        let mut memory = Memory::new(header.partition);
        (memory.cursor, memory.last, memory.time) = (header.cursor, header.last, header.time);
        for _ in 0..header.streams {
            let StreamEntry { id, stream } =
                StreamEntry::<Stream>::deserialize(&mut deserializer).map_err(damaged)?;
            memory.streams.insert(stream_id(id)?, stream);
        }
        for _ in 0..header.applied {
            let (age, command_id, stream, fingerprint, version) =
                AppliedEntry::deserialize(&mut deserializer).map_err(damaged)?;
            let applied = Applied { stream: stream_id(stream)?, fingerprint, version };
            memory.dedupe.set_age(TimeDelta::microseconds(age));
            memory.dedupe.note(command_id, applied);
        }
        memory.dedupe.set_age(TimeDelta::microseconds(header.age));
        from.check()?;
        Ok(Self(memory))
    }

    /// Whether `log` has the snapshot's last record at the same offset. If not, the snapshot
    /// belongs to another log.
    ///
    /// # Errors
    /// If the log does not answer.
    pub(super) async fn is_of(&self, log: &dyn EventLog) -> Result<bool, ReadError> {
        let Some((offset, event_id)) = self.0.last else { return Ok(false) };
        // A reader that starts behind the end of a shorter log would wait for its next record.
        if log.end(self.0.partition).await? <= offset {
            return Ok(false);
        }
        let mut reader = log.read(self.0.partition, offset).await?;
        loop {
            let chunk = reader.next().await?;
            if let Some(first) = chunk.records.first() {
                return Ok(first.offset == offset && first.record.event_id == event_id);
            }
            if chunk.at_end {
                return Ok(false);
            }
        }
    }

    pub(super) fn into_memory(self) -> Memory {
        self.0
    }
}

fn micros(age: TimeDelta) -> i64 {
    age.num_microseconds().unwrap_or(i64::MAX)
}

fn damaged(error: impl Into<Box<dyn Error + Send + Sync>>) -> SnapshotError {
    SnapshotError::Damaged(error.into())
}

fn stream_id((kind, id): (u8, Uuid)) -> Result<StreamId, SnapshotError> {
    let kind = StreamKind::from_u8(kind)
        .ok_or_else(|| damaged("it contains an unknown kind of stream"))?;
    Ok(StreamId { kind, id })
}

/// Computes the checksum of the bytes that pass through it.
struct Summed<T> {
    through: T,
    sum: crc32fast::Hasher,
}

impl<T> Summed<T> {
    fn new(through: T) -> Self {
        Self { through, sum: crc32fast::Hasher::new() }
    }
}

impl<W: Write> Summed<W> {
    /// Appends the checksum.
    fn end(mut self) -> io::Result<()> {
        self.through.write_all(&self.sum.finalize().to_le_bytes())?;
        self.through.flush()
    }
}

impl<R: Read> Summed<R> {
    /// Checks that the next bytes are the checksum of what was read, and that nothing follows it.
    fn check(mut self) -> Result<(), SnapshotError> {
        let mut rest = Vec::new();
        self.through.read_to_end(&mut rest).map_err(damaged)?;
        if rest == self.sum.finalize().to_le_bytes() {
            return Ok(());
        }
        Err(damaged("its checksum does not match"))
    }
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.through.write(bytes)?;
        self.sum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.through.flush()
    }
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.through.read(bytes)?;
        self.sum.update(&bytes[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
