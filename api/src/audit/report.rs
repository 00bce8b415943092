//! What an audit finds.

use events::{Offset, Partition, StreamId};
use projections::past::ModelReport;
use serde::Serialize;
use uuid::Uuid;

/// Findings a report names; more are only counted.
const NAMED_FINDINGS: usize = 1_000;

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
    /// Golden events that this program does not read: a partition that holds one would stop its
    /// shard.
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

    pub(super) fn note(&mut self, partition: Partition, offset: Offset, fault: Fault) {
        self.found += 1;
        if self.findings.len() < NAMED_FINDINGS {
            self.findings.push(Finding { partition, offset, fault });
        }
    }
}
