//! Cases about appending.

use super::{
    Harness, P, PARTITIONS, append, batch, commit_raw, ids, open, open_from, read_to, within,
};
use crate::log::{AppendError, Cursor, MAX_BATCH_BYTES, StoredBatch, Writer, assembler::Void};
use crate::{Partition, environment::System};
use futures::future::join_all;

/// A reader of a partition sees the appended records, in their order, at the acknowledged offsets.
pub async fn what_was_appended_reads_back_in_order(harness: &dyn Harness) {
    let log = harness.log().await;
    for partition in [Partition(0), Partition(PARTITIONS - 1)] {
        let mut writer = open(&*log, partition).await;
        let mut appended = Vec::new();
        for len in [1, 3, 64, 2, 1] {
            let batch = batch(&writer, len);
            let offsets = within(writer.append(&batch)).await.unwrap();
            appended.push((batch, offsets));
        }
        let last = appended[4].0.id;
        let (read, void) = read_to(&*log, partition, Cursor::START, last).await;
        assert!(void.is_empty(), "{void:?}");
        let read: Vec<&StoredBatch> = read.iter().skip(1).collect();
        assert_eq!(read.len(), appended.len(), "each batch once, after the claim");
        for (stored, (batch, offsets)) in read.iter().zip(&appended) {
            assert_eq!((stored.id, stored.term, stored.partition), (batch.id, 1, partition));
            let records: Vec<_> = stored.records.iter().map(|s| s.record.clone()).collect();
            assert_eq!(records, batch.records);
            assert_eq!(&stored.records.iter().map(|s| s.offset).collect::<Vec<_>>(), offsets);
        }
        assert_ascending(read.into_iter());
    }
}

fn assert_ascending<'a>(batches: impl Iterator<Item = &'a StoredBatch>) {
    let offsets: Vec<_> =
        batches.flat_map(|batch| batch.records.iter().map(|stored| stored.offset)).collect();
    assert!(offsets.is_sorted_by(|a, b| a < b), "{offsets:?}");
}

/// A batch of the largest size that a shard makes.
pub async fn the_largest_batch_reads_back(harness: &dyn Harness) {
    let log = harness.log().await;
    let mut writer = open(&*log, P).await;
    let mut large = batch(&writer, 1);
    let mut size = large.records[0].size();
    while size < MAX_BATCH_BYTES {
        let next = super::record(&"x".repeat(large.records.len() % 700));
        size += next.size();
        large.records.push(next);
    }
    large.records.pop();
    within(writer.append(&large)).await.unwrap();
    let (read, _) = read_to(&*log, P, Cursor::START, large.id).await;
    assert_eq!(ids(&read), [large.id]);
    assert!(read[1].records.iter().map(|stored| &stored.record).eq(&large.records));
}

/// The writers of all partitions append concurrently, and each partition keeps its order.
pub async fn partitions_are_written_side_by_side(harness: &dyn Harness) {
    const ROUNDS: usize = 20;
    let log = harness.log().await;
    let log = &*log;
    join_all((0..PARTITIONS).map(|partition| async move {
        let partition = Partition(partition);
        let mut writer = open(log, partition).await;
        let mut appended = Vec::new();
        for round in 0..ROUNDS {
            appended.push(append(&mut writer, 1 + round % 4).await.id);
        }
        let (read, _) = read_to(log, partition, Cursor::START, appended[ROUNDS - 1]).await;
        assert_eq!(ids(&read), appended);
    }))
    .await;
}

/// A beat is appended and read like any other batch.
pub async fn a_beat_is_a_batch(harness: &dyn Harness) {
    let log = harness.log().await;
    let mut writer = open(&*log, P).await;
    let beat = writer.beat(&System::new());
    within(writer.append(&beat)).await.unwrap();
    let last = append(&mut writer, 1).await;
    let (read, _) = read_to(&*log, P, Cursor::START, last.id).await;
    assert_eq!(ids(&read), [beat.id, last.id]);
    assert_eq!(read[1].records[0].record.event_type, Writer::BEAT);
}

/// The next append of a writer that lost its lanes fails, its batch is not in the log, and the
/// writer refuses further appends.
pub async fn a_fenced_writer_is_told_and_spent(harness: &dyn Harness) {
    let (log, other) = (harness.log().await, harness.log().await);
    let mut old = open(&*log, P).await;
    let first = append(&mut old, 2).await;
    let mut new = open(&*other, P).await;
    assert!(new.term() > old.term());

    let lost = batch(&old, 1);
    within(old.append(&lost)).await.expect_err("the old writer's lanes are fenced");
    assert!(old.is_spent());
    let refused = within(old.append(&batch(&old, 1))).await;
    assert!(matches!(refused, Err(AppendError::NotApplied(_))), "{refused:?}");

    let second = append(&mut new, 1).await;
    let (read, _) = read_to(&*log, P, Cursor::START, second.id).await;
    assert_eq!(ids(&read), [first.id, second.id]);
}

/// A writer that lost one lane fails within two appends. The history read at the reopening does not
/// contain the failed batch.
pub async fn one_fenced_lane_is_enough(harness: &dyn Harness) {
    let log = harness.log().await;
    for lane in 0..crate::log::LANES {
        let mut writer = open(&*log, P).await;
        let before = append(&mut writer, 1).await;
        let _taken = within(log.fence(P, lane)).await.unwrap();
        let mut acknowledged = vec![before.id];
        let failed = loop {
            let batch = batch(&writer, 3);
            match within(writer.append(&batch)).await {
                Ok(_) => acknowledged.push(batch.id),
                Err(_) => break batch.id,
            }
            assert!(acknowledged.len() <= 2, "each lane is used for every second batch");
        };
        let (_, history) = open_from(&*log, P, Cursor::START).await;
        let history = ids(&history);
        assert!(acknowledged.iter().all(|id| history.contains(id)));
        assert!(!history.contains(&failed), "a batch of a fenced lane became visible");
    }
}

/// A batch without its last records is void for every reader, from every starting place, before and
/// after later writes.
pub async fn an_incomplete_batch_is_void_for_everybody(harness: &dyn Harness) {
    let log = harness.log().await;
    let mut writer = open(&*log, P).await;
    let before = append(&mut writer, 2).await;
    let torn = batch(&writer, 3);
    drop(writer);
    harness.tear(P, &torn, 2).await;

    let (mut writer, history) = open_from(&*log, P, Cursor::START).await;
    assert_eq!(ids(&history), [before.id], "the opener skips the torn batch");
    let after = append(&mut writer, 1).await;
    let observer = harness.observer().await;
    for log in [&log, &observer] {
        let (read, void) = read_to(&**log, P, Cursor::START, after.id).await;
        assert_eq!(ids(&read), [before.id, after.id]);
        assert!(
            matches!(*void, [Void::Torn { batch_id, .. }] if batch_id == torn.id),
            "an audit reports the torn batch: {void:?}"
        );
    }
}

/// A batch of a writer whose term has ended is void for every reader, from every starting place; so
/// is its late claim.
pub async fn a_batch_of_a_dead_term_is_void(harness: &dyn Harness) {
    let log = harness.log().await;
    let mut old = open(&*log, P).await;
    let first = append(&mut old, 1).await;
    let ghosts = [batch(&old, 2), batch(&old, 1)];
    let (mut new, history) = open_from(&*log, P, Cursor::START).await;
    assert_eq!(ids(&history), [first.id]);
    let second = append(&mut new, 1).await;
    let last_good = read_to(&*log, P, Cursor::START, second.id).await.0;

    for ghost in &ghosts {
        commit_raw(&*log, 1, ghost).await;
    }
    let claim = super::claims::claim_of_term(&System::new(), P, old.term());
    commit_raw(&*log, 0, &claim).await;
    let (mut newest, _) = open_from(&*log, P, Cursor::START).await;
    assert!(newest.term() > new.term());
    let third = append(&mut newest, 1).await;

    // Read from the start, and from each batch that counts with the term of a cursor there.
    let (all, void) = read_to(&*log, P, Cursor::START, third.id).await;
    assert_eq!(ids(&all), [first.id, second.id, third.id]);
    assert_eq!(void.len(), 4, "three records and a claim are of an ended term: {void:?}");
    let mut term = 0;
    for (index, stored) in last_good.iter().enumerate() {
        let from = Cursor { offset: stored.records[0].offset, term };
        term = stored.term;
        let (rest, _) = read_to(&*log, P, from, third.id).await;
        assert_eq!(ids(&rest), ids(&all[index..]));
    }
}

/// After a kill and a reopening, every acknowledged batch is there, and the term has grown.
pub async fn what_was_acknowledged_survives_a_kill(harness: &dyn Harness) {
    let mut acknowledged = Vec::new();
    let mut term = 0;
    for _ in 0..3 {
        let log = harness.log().await;
        let (mut writer, history) = open_from(&*log, P, Cursor::START).await;
        assert_eq!(ids(&history), acknowledged);
        assert!(writer.term() > term);
        for len in [1, 5] {
            acknowledged.push(append(&mut writer, len).await.id);
        }
        // The append is dropped while it waits. The batch may be in the log or not, but never in
        // part; the reopening shows which.
        let unanswered = batch(&writer, 2);
        let _ = futures::poll!(std::pin::pin!(writer.append(&unanswered)));
        drop((writer, log));
        harness.kill().await;

        let log = harness.log().await;
        let (writer, history) = open_from(&*log, P, Cursor::START).await;
        let landed = history.iter().any(|batch| batch.id == unanswered.id);
        acknowledged.extend(landed.then_some(unanswered.id));
        assert_eq!(ids(&history), acknowledged);
        term = writer.term();
        drop((writer, log));
        harness.kill().await;
    }
}
