//! Walks the whole log and reports its faults. A log that the program wrote correctly has none.

mod golden;
mod report;
mod walk;

pub use report::{Fault, Finding, Report};

use events::{
    Partition,
    log::{EventLog, ReadError},
};
use walk::Walk;

/// Walks every partition to its current end.
///
/// # Errors
/// If the log cannot be reached. Damage is a finding and no error.
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

#[cfg(test)]
mod tests {
    use super::*;
    use events::{
        Event, Fingerprint, Metadata, StreamId, Timestamp,
        environment::System,
        log::{Batch, Record, memory::MemoryLog},
        order,
        partitioner::partition_of,
    };
    use std::sync::Arc;
    use uuid::Uuid;

    const ALONE: Partition = Partition(0);

    fn stream(id: u128) -> StreamId {
        StreamId::order(Uuid::from_u128(id))
    }

    /// An event of a command, so many hours after the beginning.
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

    /// The faults of a log whose one partition has these batches.
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
    async fn undecodable_and_misplaced_events_are_found() {
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
