//! A plain file with the events of a log, one after another.

use anyhow::{Context, Result, bail};
use events::{
    Partition, StreamId, StreamKind, Timestamp,
    log::{BatchReader, Cursor, EventLog, Record},
};
use std::{
    fs,
    io::{BufRead, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};
use uuid::Uuid;

/// Size of the read buffer, in bytes.
const BUFFER: usize = 1 << 20;

/// Size of an event's head: stream, version, schema, time, partition, offset, four ids, and the
/// lengths of type and body.
const HEAD: usize = 17 + 8 + 2 + 8 + 4 + 8 + 64 + 1 + 4;

/// A file of events.
pub struct File(PathBuf);

/// An event in the file.
pub(super) struct Stored<'a> {
    pub stream: StreamId,
    pub version: i64,
    pub schema: u16,
    pub time: Timestamp,
    pub partition: i32,
    pub offset: i64,
    /// The ids of the event, its command, its process (the correlation id) and its cause.
    pub ids: [Uuid; 4],
    pub event_type: &'a str,
    pub body: &'a [u8],
}

impl File {
    /// Writes the events of the whole log up to its current end.
    ///
    /// # Errors
    /// When the log cannot be read or the file cannot be written.
    pub async fn write(log: &dyn EventLog, path: &Path) -> Result<Self> {
        let mut file = BufWriter::with_capacity(BUFFER, fs::File::create(path)?);
        for partition in (0..log.partitions()).map(Partition) {
            let mut reader = BatchReader::open(log, partition, Cursor::START).await?;
            loop {
                let chunk = reader.next().await?;
                for stored in chunk.batches.iter().flat_map(|batch| &batch.records) {
                    if stored.record.stream.kind != StreamKind::Writer {
                        let packed = pack(partition, stored.offset.0, &stored.record)?;
                        file.write_all(&packed)?;
                    }
                }
                if chunk.at_end {
                    break;
                }
            }
        }
        file.flush()?;
        Ok(Self(path.to_owned()))
    }

    /// Passes each event to `take`.
    ///
    /// # Errors
    /// The first error of `take` or of reading the file.
    pub(super) fn each(&self, mut take: impl FnMut(&Stored<'_>) -> Result<()>) -> Result<()> {
        let mut file = BufReader::with_capacity(BUFFER, fs::File::open(&self.0)?);
        let (mut head, mut text) = ([0; HEAD], Vec::new());
        while !file.fill_buf()?.is_empty() {
            file.read_exact(&mut head)?;
            let (type_len, body_len) = lengths(&head);
            text.resize(type_len + body_len, 0);
            file.read_exact(&mut text)?;
            take(&unpack(&head, &text, type_len)?)?;
        }
        Ok(())
    }
}

fn pack(partition: Partition, offset: i64, record: &Record) -> Result<Vec<u8>> {
    let metadata = &record.metadata;
    let mut packed = Vec::with_capacity(HEAD + 64 + record.body.len());
    packed.push(record.stream.kind as u8);
    packed.extend_from_slice(record.stream.id.as_bytes());
    packed.extend_from_slice(&metadata.version.to_be_bytes());
    packed.extend_from_slice(&metadata.schema.to_be_bytes());
    packed.extend_from_slice(&record.time.timestamp_micros().to_be_bytes());
    packed.extend_from_slice(&partition.0.to_be_bytes());
    packed.extend_from_slice(&offset.to_be_bytes());
    let causes = [metadata.command_id, metadata.correlation_id, metadata.causation_id];
    packed.extend_from_slice(record.event_id.as_bytes());
    for id in causes {
        packed.extend_from_slice(id.as_bytes());
    }
    packed.push(u8::try_from(record.event_type.len())?);
    packed.extend_from_slice(&u32::try_from(record.body.len())?.to_be_bytes());
    packed.extend_from_slice(record.event_type.as_bytes());
    packed.extend_from_slice(&record.body);
    Ok(packed)
}

fn lengths(head: &[u8; HEAD]) -> (usize, usize) {
    let [.., type_len, a, b, c, d] = *head;
    (usize::from(type_len), u32::from_be_bytes([a, b, c, d]) as usize)
}

fn unpack<'a>(head: &[u8; HEAD], text: &'a [u8], type_len: usize) -> Result<Stored<'a>> {
    let Some(kind) = StreamKind::from_u8(head[0]) else { bail!("no event begins here") };
    let id = |at: usize| Uuid::from_slice(&head[at..at + 16]);
    let long = |at: usize| head[at..at + 8].try_into().map(i64::from_be_bytes);
    Ok(Stored {
        stream: StreamId { kind, id: id(1)? },
        version: long(17)?,
        schema: u16::from_be_bytes([head[25], head[26]]),
        time: Timestamp::from_timestamp_micros(long(27)?).context("no time")?,
        partition: i32::from_be_bytes(head[35..39].try_into()?),
        offset: long(39)?,
        ids: [id(47)?, id(63)?, id(79)?, id(95)?],
        event_type: std::str::from_utf8(&text[..type_len])?,
        body: &text[type_len..],
    })
}
