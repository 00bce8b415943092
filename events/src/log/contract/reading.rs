//! Cases about reading.

use super::{Harness, P, append, batch, ids, open, open_from, read_to, within};
use crate::Offset;
use crate::log::{BatchReader, Chunk, Cursor, EventLog, RawChunk, ReadError, StoredBatch, Writer};
use futures::future::join;
use uuid::Uuid;

/// While batches are being appended, the visible records never end in the middle of a batch.
pub async fn a_reader_never_sees_a_part_of_a_batch(harness: &dyn Harness) {
    const BATCHES: usize = 40;
    let log = harness.log().await;
    let observer = harness.observer().await;
    let mut writer = open(&*log, P).await;
    let batches: Vec<_> = (0..BATCHES).map(|n| batch(&writer, 1 + n * 7 % 60)).collect();
    let write = async {
        for batch in &batches {
            writer.append(batch).await.expect("the batch is appended");
        }
    };
    let read = join(
        assert_ends_are_whole(&*log, batches[BATCHES - 1].id),
        assert_ends_are_whole(&*observer, batches[BATCHES - 1].id),
    );
    within(join(write, read)).await;
}

async fn assert_ends_are_whole(log: &dyn EventLog, last: Uuid) {
    let mut reader = log.read(P, Offset::START).await.expect("reading begins");
    let mut stamp = None;
    loop {
        let chunk = reader.next().await.expect("the log reads");
        stamp = chunk.records.last().map(|raw| raw.stamp).or(stamp);
        let is_whole = stamp.is_none_or(|stamp| stamp.index + 1 == stamp.len);
        assert!(!chunk.at_end || is_whole, "a part of a batch is visible");
        if is_whole && stamp.is_some_and(|stamp| stamp.batch_id == last) {
            return;
        }
    }
}

/// A reader may start at any offset: at a record, in a gap or at the end. It reads exactly the
/// batches that begin there or later.
pub async fn reading_may_begin_at_any_offset(harness: &dyn Harness) {
    let log = harness.log().await;
    let mut writer = open(&*log, P).await;
    for len in [3, 1, 4, 2] {
        append(&mut writer, len).await;
    }
    let last = append(&mut writer, 1).await;
    let (all, _) = read_to(&*log, P, Cursor::START, last.id).await;
    let first_of = |batch: &StoredBatch| batch.records[0].offset;
    let end = first_of(&all[all.len() - 1]);
    for offset in (0..=end.0).map(Offset) {
        let expected: Vec<_> =
            all.iter().filter(|batch| first_of(batch) >= offset).cloned().collect();
        let (read, _) = read_to(&*log, P, Cursor { offset, term: 0 }, last.id).await;
        assert_eq!(read, expected, "from {offset}");
    }
}

/// A reader that starts at any cursor of another reader reads the same batches from there on, also
/// past torn batches and several terms.
pub async fn reading_goes_on_from_any_cursor(harness: &dyn Harness) {
    let log = harness.log().await;
    let mut reader = BatchReader::open(&*log, P, Cursor::START).await.unwrap();
    let mut cursors = vec![Cursor::START];
    for round in 0..3 {
        let mut writer = open(&*log, P).await;
        for len in [1, 3] {
            let appended = append(&mut writer, len).await;
            cursors.extend(follow(&mut reader, appended.id).await);
        }
        if round < 2 {
            let torn = batch(&writer, 4);
            harness.tear(P, &torn, 1 + round).await;
        }
    }
    let (mut writer, _) = open_from(&*log, P, Cursor::START).await;
    let last = append(&mut writer, 2).await;
    let (all, _) = read_to(&*log, P, Cursor::START, last.id).await;
    for from in cursors {
        let (rest, _) = read_to(&*log, P, from, last.id).await;
        assert!(all.ends_with(&rest), "from {from:?}");
        let before = &all[..all.len() - rest.len()];
        assert!(before.iter().all(|batch| batch.records[0].offset < from.offset));
    }
}

/// Reads until the batch appears. Returns the cursors on the way.
async fn follow(reader: &mut BatchReader, until: Uuid) -> Vec<Cursor> {
    let mut cursors = Vec::new();
    loop {
        let chunk = within(reader.next()).await.expect("the log reads");
        cursors.push(chunk.cursor);
        if chunk.batches.iter().any(|batch| batch.id == until) {
            return cursors;
        }
    }
}

/// An append wakes a reader that waits at the end, in this process and in another.
pub async fn a_waiting_reader_gets_what_comes(harness: &dyn Harness) {
    let log = harness.log().await;
    let observer = harness.observer().await;
    let mut writer = open(&*log, P).await;
    let mut last = append(&mut writer, 1).await;
    for log in [&log, &observer] {
        let mut reader = BatchReader::open(&**log, P, Cursor::START).await.unwrap();
        read_to_end(&mut reader, last.id).await;
        for _ in 0..5 {
            let next = batch(&writer, 2);
            let (chunk, appended) =
                within(join(next_batches(&mut reader), writer.append(&next))).await;
            appended.expect("the batch is appended");
            assert_eq!(ids(&chunk.batches), [next.id]);
            last = next;
        }
    }
}

/// Reads to the end of the partition, which must come after the batch `known`.
async fn read_to_end(reader: &mut BatchReader, known: Uuid) {
    let mut seen = false;
    loop {
        let chunk = within(reader.next()).await.expect("the log reads");
        seen |= chunk.batches.iter().any(|batch| batch.id == known);
        if seen && chunk.at_end {
            return;
        }
    }
}

/// The next chunk that contains a batch.
async fn next_batches(reader: &mut BatchReader) -> Chunk {
    loop {
        let chunk = reader.next().await.expect("the log reads");
        if !chunk.batches.is_empty() {
            return chunk;
        }
    }
}

/// The future of `next` may be dropped at any moment.
pub async fn a_reader_dropped_while_waiting_loses_nothing(harness: &dyn Harness) {
    let log = harness.log().await;
    let mut writer = open(&*log, P).await;
    let mut reader = BatchReader::open(&*log, P, Cursor::START).await.unwrap();
    let (mut appended, mut read) = (Vec::new(), Vec::new());
    for round in 0..20 {
        let batch = append(&mut writer, 1 + round % 3).await;
        appended.push(batch.id);
        // Polls once and drops the future: some polls return records, the others are dropped while
        // waiting.
        for _ in 0..=round % 4 {
            if let std::task::Poll::Ready(chunk) = futures::poll!(std::pin::pin!(reader.next())) {
                read.extend(chunk.expect("the log reads").batches);
            }
        }
    }
    while ids(&read).last() != appended.last() {
        read.extend(within(reader.next()).await.expect("the log reads").batches);
    }
    assert_eq!(ids(&read), appended);
}

/// `acknowledged` covers a batch as soon as it is acknowledged, even if readers do not see it yet.
/// Readers reach that end later.
pub async fn what_is_acknowledged_is_known_at_once(harness: &dyn Harness) {
    let log = harness.log().await;
    let mut writer = open(&*log, P).await;
    for len in [1, 3, 2] {
        let appended = batch(&writer, len);
        let offsets = writer.append(&appended).await.expect("the batch is appended");
        let end = log.acknowledged(P).await.unwrap();
        assert!(offsets.iter().all(|offset| *offset < end), "{offsets:?} are not before {end}");
        assert!(idle_end(&*log, Some(appended.id)).await >= end, "readers do not reach {end}");
    }
}

/// Every visible record is before the end, and an idle reader is at the end.
pub async fn the_end_is_behind_all_that_is_visible(harness: &dyn Harness) {
    let log = harness.log().await;
    assert_eq!(
        idle_end(&*log, None).await,
        log.end(P).await.unwrap(),
        "the end of an empty partition"
    );
    let mut writer = open(&*log, P).await;
    let mut ends = vec![log.end(P).await.unwrap()];
    for len in [1, 3, 2] {
        let last = append(&mut writer, len).await;
        let next = idle_end(&*log, Some(last.id)).await;
        let end = log.end(P).await.unwrap();
        assert_eq!(next, end, "an idle reader is at the end");
        assert!(*ends.last().unwrap() < end);
        let (read, _) = read_to(&*log, P, Cursor::START, last.id).await;
        assert!(read.iter().flat_map(|batch| &batch.records).all(|stored| stored.offset < end));
        // A reader that starts at the end reads the next append and nothing else.
        let next = append(&mut writer, 1).await;
        let (rest, _) = read_to(&*log, P, Cursor { offset: end, term: 0 }, next.id).await;
        assert_eq!(ids(&rest), [next.id]);
        ends.push(end);
    }
    assert_eq!(harness.observer().await.end(P).await.unwrap(), log.end(P).await.unwrap());
}

/// The offset at which a raw reader continues once it has read the batch `known` and reached the
/// end.
async fn idle_end(log: &dyn EventLog, known: Option<Uuid>) -> Offset {
    within(async {
        let mut reader = log.read(P, Offset::START).await.expect("reading begins");
        let mut seen = known.is_none();
        loop {
            let RawChunk { records, next, at_end, .. } =
                reader.next().await.expect("the log reads");
            seen |= records.iter().any(|raw| Some(raw.stamp.batch_id) == known);
            if seen && at_end {
                return next.expect("the end has an offset");
            }
        }
    })
    .await
}

/// Reading from an offset beyond the end fails: the reader has read another log, or this log has
/// lost its last records.
pub async fn reading_cannot_begin_beyond_the_end(harness: &dyn Harness) {
    let log = harness.log().await;
    let mut writer: Writer = open(&*log, P).await;
    append(&mut writer, 1).await;
    let beyond = Offset(1_000_000);
    let read = within(async {
        let mut reader = log.read(P, beyond).await?;
        reader.next().await
    });
    let read = read.await;
    assert!(matches!(read, Err(ReadError::Damaged { .. })), "{read:?}");
}
