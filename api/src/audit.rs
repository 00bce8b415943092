//! Walks the whole log and says what is wrong with it: nothing, if everything else works.

use events::{
    Offset, Partition, Position, StreamId, StreamKind, Timestamp,
    log::{BatchReader, Claim, Cursor, EventLog, ReadError, StoredBatch, Writer, assembler::Void},
    partitioner::partition_of,
};
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// Findings a report names; more are only counted.
const NAMED_FINDINGS: usize = 1_000;

/// For this much log time a command id may not append twice: as long as the write side remembers
/// it.
const MEMORY: chrono::TimeDelta = chrono::TimeDelta::hours(48);

/// What is in the log, and what is wrong with it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Partitions walked.
    pub partitions: u32,
    /// Batches that count.
    pub batches: u64,
    /// Domain events in them.
    pub events: u64,
    /// Streams they belong to.
    pub streams: u64,
    /// Everything found, named below or not.
    pub found: u64,
    /// The first findings of each partition.
    pub findings: Vec<Finding>,
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The partition.
    pub partition: Partition,
    /// Where it was noticed.
    pub offset: Offset,
    /// What it is.
    #[serde(flatten)]
    pub fault: Fault,
}

/// What can be wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "fault", rename_all = "kebab-case")]
pub enum Fault {
    /// A stream's versions do not grow by one.
    VersionGap {
        /// The stream.
        stream: StreamId,
        /// What should have come.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// One command appended twice.
    DuplicateCommand {
        /// The stream.
        stream: StreamId,
        /// The command.
        command_id: Uuid,
        /// Where it appended first.
        first: Offset,
    },
    /// A batch that is not whole.
    TornBatch {
        /// The batch.
        batch_id: Uuid,
    },
    /// A record of a writer whose term was over.
    OvertakenRecord {
        /// The batch.
        batch_id: Uuid,
        /// The term that was over.
        term: u64,
    },
    /// An event this program does not know.
    Undecodable {
        /// The stream.
        stream: StreamId,
        /// Why.
        reason: String,
    },
    /// A stream in a partition that is not its own.
    WrongPartition {
        /// The stream.
        stream: StreamId,
    },
    /// Time ran backwards.
    TimeBackwards {
        /// The stream.
        stream: StreamId,
    },
    /// What stands here cannot be read, and so nothing behind it.
    Damaged {
        /// Why.
        reason: String,
    },
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.found == 0
    }

    fn note(&mut self, partition: Partition, offset: Offset, fault: Fault) {
        self.found += 1;
        if self.findings.len() < NAMED_FINDINGS {
            self.findings.push(Finding { partition, offset, fault });
        }
    }
}

/// Walks every partition to where it ends now. `walked` hears of each one that is done.
///
/// # Errors
/// When the log cannot be reached. Damage is a finding.
pub async fn audit(
    log: &dyn EventLog,
    mut walked: impl FnMut(Partition),
) -> Result<Report, ReadError> {
    let mut report = Report { partitions: log.partitions(), ..Report::default() };
    for partition in (0..log.partitions()).map(Partition) {
        match Walk::new(log.partitions(), partition, &mut report).run(log).await {
            Err(ReadError::Damaged { offset, source, .. }) => {
                report.note(partition, offset, Fault::Damaged { reason: source.to_string() });
            }
            outcome => outcome?,
        }
        walked(partition);
    }
    Ok(report)
}

/// A command that appended.
#[derive(Clone, Copy)]
struct Seen {
    batch: Uuid,
    offset: Offset,
    time: Timestamp,
}

/// One partition: streams live in one, so nothing is carried over to the next.
struct Walk<'a> {
    partitions: u32,
    partition: Partition,
    report: &'a mut Report,
    versions: HashMap<StreamId, u64>,
    /// Commands of the present 48 hours of log time and of those before them.
    commands: [HashMap<(StreamId, Uuid), Seen>; 2],
    turned: Option<Timestamp>,
    latest: Option<Timestamp>,
    /// Batches that were begun and are not to be called torn twice.
    torn: HashSet<Uuid>,
}

impl<'a> Walk<'a> {
    fn new(partitions: u32, partition: Partition, report: &'a mut Report) -> Self {
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

    async fn run(mut self, log: &dyn EventLog) -> Result<(), ReadError> {
        let mut reader = BatchReader::open(log, self.partition, Cursor::START).await?;
        loop {
            let chunk = reader.next().await?;
            chunk.batches.iter().for_each(|batch| self.batch(batch));
            reader.take_void().into_iter().for_each(|void| self.void(void));
            if chunk.at_end {
                self.report.streams += self.versions.len() as u64;
                return Ok(());
            }
        }
    }

    fn void(&mut self, void: Void) {
        match void {
            Void::Torn { batch_id, offset } => {
                if self.torn.insert(batch_id) {
                    self.report.note(self.partition, offset, Fault::TornBatch { batch_id });
                }
            }
            Void::Overtaken { batch_id, offset, term } => {
                let fault = Fault::OvertakenRecord { batch_id, term };
                self.report.note(self.partition, offset, fault);
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
                let reason = with_causes(&error);
                self.note(position, Fault::Undecodable { stream, reason });
            }
        }
    }

    fn writer_record(&mut self, position: Position, record: &events::log::Record) {
        if record.event_type != Claim::TYPE && record.event_type != Writer::BEAT {
            let reason = format!("unknown type {:?}", record.event_type);
            self.note(position, Fault::Undecodable { stream: record.stream, reason });
        }
    }

    fn version(&mut self, position: Position, stream: StreamId, found: u64) {
        let version = self.versions.entry(stream).or_default();
        let expected = *version + 1;
        // Going on from what was found names each gap once.
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

/// An error with its causes, in one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}
