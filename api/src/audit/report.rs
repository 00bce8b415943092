//! The report of an audit.

use events::{Offset, Partition, StreamId};
use projections::past::ModelReport;
use serde::Serialize;
use uuid::Uuid;

/// The most findings that a report lists. Further ones are only counted.
const NAMED_FINDINGS: usize = 1_000;

/// The contents of a log, and its faults.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Number of partitions walked.
    pub partitions: u32,
    /// Number of batches that count.
    pub batches: u64,
    /// Number of domain events in these batches.
    pub events: u64,
    /// Number of streams of these events.
    pub streams: u64,
    /// Number of findings, listed below or not.
    pub found: u64,
    /// The first findings.
    pub findings: Vec<Finding>,
    /// The serving read models compared with a fold of the log, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_models: Option<Vec<ModelReport>>,
    /// Golden events that this program cannot decode. A partition with such an event would stop its
    /// shard.
    pub golden: Vec<String>,
    /// Why the log was not walked at all, if it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
}

/// A fault, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The partition.
    pub partition: Partition,
    /// The offset at which the fault was found.
    pub offset: Offset,
    /// The fault.
    #[serde(flatten)]
    pub fault: Fault,
}

/// A fault of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "fault", rename_all = "kebab-case")]
pub enum Fault {
    /// A stream's versions do not grow by one.
    VersionGap {
        /// The stream.
        stream: StreamId,
        /// The version expected.
        expected: u64,
        /// The version found.
        found: u64,
    },
    /// One command has appended events twice.
    DuplicateCommand {
        /// The stream.
        stream: StreamId,
        /// The command.
        command_id: Uuid,
        /// Offset of its first events.
        first: Offset,
    },
    /// A batch is incomplete.
    TornBatch {
        /// The batch.
        batch_id: Uuid,
    },
    /// A record comes from a writer whose term had ended.
    OvertakenRecord {
        /// The batch.
        batch_id: Uuid,
        /// The writer's term.
        term: u64,
    },
    /// Another program wrote a record into the topic. It does not count.
    ForeignRecord,
    /// This program cannot decode an event.
    Undecodable {
        /// The stream.
        stream: StreamId,
        /// Why not.
        reason: String,
    },
    /// A stream has events in another partition than its own.
    WrongPartition {
        /// The stream.
        stream: StreamId,
    },
    /// An event is earlier than the one before it in the partition.
    TimeBackwards {
        /// The stream.
        stream: StreamId,
    },
    /// A record is damaged. Nothing behind it can be read.
    Damaged {
        /// What is wrong with it.
        reason: String,
    },
}

impl Report {
    /// Whether there are no faults.
    pub fn is_clean(&self) -> bool {
        self.found == 0
    }

    /// The report of a log that cannot be opened because it is damaged.
    pub fn of_damage(reason: &str) -> Self {
        Self { found: 1, damage: Some(reason.to_owned()), ..Self::default() }
    }

    /// Adds the comparison of the read models.
    pub fn add_read_models(&mut self, reports: Vec<ModelReport>) {
        self.found += reports.iter().map(|report| report.found).sum::<u64>();
        self.read_models = Some(reports);
    }

    pub(super) fn note(&mut self, partition: Partition, offset: Offset, fault: Fault) {
        self.found += 1;
        if self.findings.len() < NAMED_FINDINGS {
            self.findings.push(Finding { partition, offset, fault });
        }
    }
}
