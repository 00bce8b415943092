//! Walks one partition from its first record to its current end.

use super::{Fault, Report};
use events::{
    Offset, Partition, Position, StreamId, StreamKind, Timestamp, full_text,
    log::{
        BatchReader, Claim, Cursor, EventLog, ReadError, Record, StoredBatch, Writer,
        assembler::Void,
    },
    partitioner::partition_of,
};
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// The log time within which a command id must not append twice: as long as the write side
/// remembers command ids.
const MEMORY: chrono::TimeDelta = chrono::TimeDelta::hours(48);

/// A command that has appended events.
#[derive(Clone, Copy)]
struct Seen {
    batch: Uuid,
    offset: Offset,
    time: Timestamp,
}

/// The walk through one partition. A stream is in one partition only, so each walk stands alone.
pub(super) struct Walk<'a> {
    partitions: u32,
    partition: Partition,
    report: &'a mut Report,
    versions: HashMap<StreamId, u64>,
    /// The commands of the current 48 hours of log time, and of the 48 hours before.
    commands: [HashMap<(StreamId, Uuid), Seen>; 2],
    turned: Option<Timestamp>,
    latest: Option<Timestamp>,
    /// Incomplete batches that are reported already.
    torn: HashSet<Uuid>,
}

impl<'a> Walk<'a> {
    pub fn new(partitions: u32, partition: Partition, report: &'a mut Report) -> Self {
        Self {
            partitions,
            partition,
            report,
            versions: HashMap::new(),
            commands: Default::default(),
            turned: None,
            latest: None,
            torn: HashSet::new(),
        }
    }

    pub async fn run(mut self, log: &dyn EventLog) -> Result<(), ReadError> {
        let mut reader = BatchReader::open(log, self.partition, Cursor::START).await?;
        loop {
            let chunk = reader.next().await?;
            chunk.batches.iter().for_each(|batch| self.batch(batch));
            reader.take_void().iter().for_each(|void| self.void(void));
            if chunk.at_end {
                self.report.streams += self.versions.len() as u64;
                return Ok(());
            }
        }
    }

    fn void(&mut self, void: &Void) {
        match *void {
            Void::Torn { batch_id, offset } => {
                if self.torn.insert(batch_id) {
                    self.report.note(self.partition, offset, Fault::TornBatch { batch_id });
                }
            }
            Void::Overtaken { batch_id, offset, term } => {
                let fault = Fault::OvertakenRecord { batch_id, term };
                self.report.note(self.partition, offset, fault);
            }
            Void::Foreign { offset } => {
                self.report.note(self.partition, offset, Fault::ForeignRecord);
            }
        }
    }

    fn batch(&mut self, batch: &StoredBatch) {
        self.report.batches += 1;
        for (position, record) in batch.positioned() {
            if record.stream.kind == StreamKind::Writer {
                self.writer_record(position, record);
                continue;
            }
            self.report.events += 1;
            let stream = record.stream;
            if partition_of(stream, self.partitions) != self.partition {
                self.note(position, Fault::WrongPartition { stream });
            }
            if self.latest.is_some_and(|latest| record.time < latest) {
                self.note(position, Fault::TimeBackwards { stream });
            }
            self.latest = Some(record.time);
            self.version(position, stream, record.metadata.version);
            let seen = Seen { batch: batch.id, offset: position.offset, time: record.time };
            self.command(stream, record.metadata.command_id, seen);
            if let Err(error) = record.decode(position) {
                let reason = full_text(&error);
                self.note(position, Fault::Undecodable { stream, reason });
            }
        }
    }

    fn writer_record(&mut self, position: Position, record: &Record) {
        if record.event_type != Claim::TYPE && record.event_type != Writer::BEAT {
            let reason = format!("unknown type {:?}", record.event_type);
            self.note(position, Fault::Undecodable { stream: record.stream, reason });
        }
    }

    fn version(&mut self, position: Position, stream: StreamId, found: u64) {
        let version = self.versions.entry(stream).or_default();
        let expected = *version + 1;
        // Counting goes on from the version found, so that each gap is reported once.
        *version = found;
        if found != expected {
            self.note(position, Fault::VersionGap { stream, expected, found });
        }
    }

    fn command(&mut self, stream: StreamId, command_id: Uuid, now: Seen) {
        if self.turned.is_none_or(|turned| now.time - turned >= MEMORY) {
            self.turned = Some(now.time);
            let [present, past] = &mut self.commands;
            *past = std::mem::take(present);
        }
        let key = (stream, command_id);
        let before = self.commands.iter().find_map(|generation| generation.get(&key)).copied();
        if let Some(first) = before
            && first.batch != now.batch
            && now.time - first.time < MEMORY
        {
            let fault = Fault::DuplicateCommand { stream, command_id, first: first.offset };
            self.report.note(self.partition, now.offset, fault);
        }
        self.commands[0].insert(key, now);
    }

    fn note(&mut self, position: Position, fault: Fault) {
        self.report.note(self.partition, position.offset, fault);
    }
}
