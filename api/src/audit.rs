//! Walks the whole log and says what is wrong with it: nothing, if everything else works.

mod golden;

use events::{
    Offset, Partition, Position, StreamId, StreamKind, Timestamp,
    log::{BatchReader, Claim, Cursor, EventLog, ReadError, StoredBatch, Writer, assembler::Void},
    partitioner::partition_of,
};
use projections::past::ModelReport;
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
    /// The serving read models against a fold of the log, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_models: Option<Vec<ModelReport>>,
    /// Golden events that this program does not read: a partition that holds one would stop its shard.
    pub golden: Vec<String>,
    /// Why the log as a whole was not walked, if it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
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

    /// Of a log that is refused because it is damaged.
    pub fn of_damage(reason: &str) -> Self {
        Self { found: 1, damage: Some(reason.to_owned()), ..Self::default() }
    }

    /// Adds what was found of the read models.
    pub fn add_read_models(&mut self, reports: Vec<ModelReport>) {
        self.found += reports.iter().map(|report| report.found).sum::<u64>();
        self.read_models = Some(reports);
    }

    fn note(&mut self, partition: Partition, offset: Offset, fault: Fault) {
        self.found += 1;
        if self.findings.len() < NAMED_FINDINGS {
            self.findings.push(Finding { partition, offset, fault });
        }
    }
}

/// Walks every partition to where it ends now.
///
/// # Errors
/// When the log cannot be reached. Damage is a finding.
pub async fn audit(log: &dyn EventLog) -> Result<Report, ReadError> {
    let golden = golden::unreadable();
    let found = golden.len() as u64;
    let mut report = Report { partitions: log.partitions(), found, golden, ..Report::default() };
    for partition in (0..log.partitions()).map(Partition) {
        match Walk::new(log.partitions(), partition, &mut report).run(log).await {
            Err(ReadError::Damaged { offset, source, .. }) => {
                report.note(partition, offset, Fault::Damaged { reason: source.to_string() });
            }
            outcome => outcome?,
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use events::{
        Event, Fingerprint, Metadata,
        environment::System,
        log::{Batch, Record, memory::MemoryLog},
        order,
    };
    use std::sync::Arc;

    const ALONE: Partition = Partition(0);

    fn stream(id: u128) -> StreamId {
        StreamId::order(Uuid::from_u128(id))
    }

    /// An event of a command, decided so many hours after the beginning.
    fn event(stream: StreamId, version: u64, command: u128, hours: i64) -> Record {
        let event = Event::from(order::Event::from(order::Confirmed::default()));
        let command_id = Uuid::from_u128(command);
        let metadata = Metadata {
            version,
            schema: 1,
            command_id,
            fingerprint: Fingerprint::default(),
            correlation_id: command_id,
            causation_id: command_id,
        };
        let time = Timestamp::UNIX_EPOCH + chrono::TimeDelta::hours(hours);
        event.to_record(Uuid::from_u128(command), stream, time, metadata)
    }

    fn batch(id: u128, records: Vec<Record>) -> Batch {
        Batch { id: Uuid::from_u128(id), term: 1, records }
    }

    /// Lands the batches, whole, in the one partition.
    async fn faults(batches: impl IntoIterator<Item = Batch>) -> Vec<Fault> {
        let log = log();
        for batch in batches {
            log.cut(ALONE, &batch, batch.records.len());
        }
        found(&log).await
    }

    fn log() -> MemoryLog {
        MemoryLog::new(1, Arc::new(System::new()))
    }

    async fn found(log: &MemoryLog) -> Vec<Fault> {
        let report = audit(log).await.unwrap();
        assert_eq!(report.found, report.findings.len() as u64);
        report.findings.into_iter().map(|finding| finding.fault).collect()
    }

    #[tokio::test]
    async fn a_sound_log_has_no_faults_and_is_counted() {
        let log = log();
        let (one, other) = (stream(1), stream(2));
        let first = batch(1, vec![event(one, 1, 1, 0), event(one, 2, 1, 0), event(other, 1, 2, 0)]);
        log.cut(ALONE, &first, 3);
        // The same command id at another stream is another step of the same process.
        log.cut(ALONE, &batch(2, vec![event(other, 2, 1, 1)]), 1);
        let report = audit(&log).await.unwrap();
        assert!(report.is_clean(), "{report:?}");
        assert_eq!((report.batches, report.events, report.streams), (2, 4, 2));
    }

    #[tokio::test]
    async fn a_gap_in_the_versions_is_found_once() {
        let one = stream(1);
        let records = vec![event(one, 1, 1, 0), event(one, 3, 2, 0), event(one, 4, 3, 0)];
        let gap = Fault::VersionGap { stream: one, expected: 2, found: 3 };
        assert_eq!(faults([batch(1, records)]).await, [gap]);
    }

    #[tokio::test]
    async fn a_command_that_appended_twice_is_found_within_its_memory() {
        let one = stream(1);
        let twice =
            |hours| [batch(1, vec![event(one, 1, 7, 0)]), batch(2, vec![event(one, 2, 7, hours)])];
        let command_id = Uuid::from_u128(7);
        for hours in [0, 1, 47] {
            let found = faults(twice(hours)).await;
            let [Fault::DuplicateCommand { stream, command_id: of, .. }] = found.as_slice() else {
                panic!("{hours}: {found:?}")
            };
            assert_eq!((*stream, *of), (one, command_id));
        }
        assert_eq!(faults(twice(49)).await, []);
    }

    #[tokio::test]
    async fn torn_and_overtaken_batches_are_found() {
        let one = stream(1);
        let torn = batch(1, vec![event(one, 1, 1, 0), event(one, 2, 1, 0)]);
        let log = log();
        log.cut(ALONE, &torn, 1);
        log.cut(ALONE, &batch(2, vec![event(one, 1, 2, 0)]), 1);
        assert_eq!(found(&log).await, [Fault::TornBatch { batch_id: torn.id }]);

        let mut newer = batch(3, vec![event(one, 2, 3, 0)]);
        newer.term = 2;
        let late = batch(4, vec![event(one, 2, 4, 0)]);
        log.cut(ALONE, &newer, 1);
        log.cut(ALONE, &late, 1);
        let overtaken = Fault::OvertakenRecord { batch_id: late.id, term: 1 };
        assert_eq!(found(&log).await, [Fault::TornBatch { batch_id: torn.id }, overtaken]);
    }

    #[tokio::test]
    async fn what_cannot_be_read_or_stands_wrong_is_found() {
        let (one, other) = (stream(1), stream(2));
        let mut unknown = event(one, 1, 1, 5);
        unknown.event_type = "OrderForgotten".into();
        let found = faults([batch(1, vec![unknown, event(other, 1, 2, 4)])]).await;
        let [Fault::Undecodable { stream, reason }, Fault::TimeBackwards { stream: second }] =
            found.as_slice()
        else {
            panic!("{found:?}")
        };
        assert_eq!((*stream, *second), (one, other));
        assert!(reason.contains("OrderForgotten"), "{reason}");

        let log = MemoryLog::new(2, Arc::new(System::new()));
        let astray = Partition(1 - partition_of(one, 2).0);
        log.cut(astray, &batch(1, vec![event(one, 1, 1, 0)]), 1);
        let report = audit(&log).await.unwrap();
        assert_eq!(report.findings[0].fault, Fault::WrongPartition { stream: one });
    }
}
