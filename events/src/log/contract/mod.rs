//! The contract: the test suite that every adapter of the log passes.
//!
//! A test file implements [`Harness`] for an adapter and calls
//! [`log_contract!`](crate::log_contract). Each case becomes a test with a log of its own. No case
//! expects a batch to be visible as soon as its commit is acknowledged: on Kafka the markers of a
//! transaction are written after the acknowledgement.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "these are tests, and a test fails by a panic"
)]

mod appending;
mod claims;
mod interleaving;
mod reading;

pub use appending::*;
pub use claims::*;
pub use interleaving::*;
pub use reading::*;

use super::{
    Batch, BatchReader, Claim, Cursor, EventLog, Record, StoredBatch, Writer, assembler::Void,
    opening,
};
use crate::{Environment, Fingerprint, Metadata, Partition, StreamId, environment::System, order};
use async_trait::async_trait;
use futures::future::{Either, select};
use std::{pin::pin, sync::Arc, time::Duration};
use uuid::Uuid;

/// A log of an adapter, initially empty, with at least [`PARTITIONS`] partitions.
#[async_trait]
pub trait Harness: Send + Sync {
    /// A handle that reads and writes, like that of another node. If the adapter allows only one
    /// such handle, every call returns it.
    async fn log(&self) -> Arc<dyn EventLog>;

    /// A read-only handle, like that of another process.
    async fn observer(&self) -> Arc<dyn EventLog> {
        self.log().await
    }

    /// Simulates a kill of the writing process. The case has dropped every handle, lane and reader
    /// without closing it. The next [`log`](Self::log) belongs to a new process.
    async fn kill(&self) {}

    /// Commits only the first `keep` records of `batch`, with the stamps of the whole batch, as a
    /// broken writer would. May fence the partition's lanes to do so.
    async fn tear(&self, partition: Partition, batch: &Batch, keep: usize);

    /// How many interleavings of two openers to try. They are spread evenly over all of them.
    fn interleavings(&self) -> usize {
        usize::MAX
    }

    /// Removes what the harness created outside the process. Called when the case has passed.
    async fn finish(&self) {}
}

/// The number of partitions that the suite uses.
pub const PARTITIONS: u32 = 3;

/// Makes a test of each case. In `log_contract!(harness)`, `harness` is an expression of type
/// `Option<impl Harness>` that may await. `None` skips the case: the adapter cannot be tested on
/// this machine and has printed why.
#[macro_export]
macro_rules! log_contract {
    ($harness:expr) => {
        $crate::log_contract! { $harness;
            what_was_appended_reads_back_in_order
            the_largest_batch_reads_back
            partitions_are_written_side_by_side
            a_reader_never_sees_a_part_of_a_batch
            a_beat_is_a_batch
            a_fenced_writer_is_told_and_spent
            one_fenced_lane_is_enough
            an_incomplete_batch_is_void_for_everybody
            a_claim_needs_a_higher_term
            a_batch_of_a_dead_term_is_void
            what_was_acknowledged_survives_a_kill
            two_openers_in_every_order
            reading_may_begin_at_any_offset
            reading_goes_on_from_any_cursor
            a_waiting_reader_gets_what_comes
            a_reader_dropped_while_waiting_loses_nothing
            the_end_is_behind_all_that_is_visible
            what_is_acknowledged_is_known_at_once
            reading_cannot_begin_beyond_the_end
        }
    };
    ($harness:expr; $($case:ident)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let Some(harness) = $harness else { return };
                $crate::log::contract::$case(&harness).await;
                $crate::log::contract::Harness::finish(&harness).await;
            }
        )+
    };
}

const P: Partition = Partition(0);

/// Far longer than a working log needs. A case that hangs fails after this time.
const BOUND: Duration = Duration::from_mins(1);

/// Waits for `work`, which must finish within a generous bound.
async fn within<T>(work: impl Future<Output = T>) -> T {
    match select(pin!(work), System::new().sleep(BOUND)).await {
        Either::Left((done, _)) => done,
        Either::Right(_) => panic!("still waiting after {BOUND:?}"),
    }
}

/// An event that contains `text`, in a new stream.
pub fn record(text: &str) -> Record {
    let environment = System::new();
    let stream = StreamId::order(environment.uuid());
    let command_id = environment.uuid();
    let metadata = Metadata {
        version: 1,
        schema: 1,
        command_id,
        fingerprint: Fingerprint(*environment.uuid().as_bytes()),
        correlation_id: environment.uuid(),
        causation_id: command_id,
    };
    let event = order::Event::from(order::Cancelled {
        plain_reason: Some(text.into()),
        ..order::Cancelled::default()
    });
    let mut record = crate::Event::from(event).to_record(
        environment.uuid(),
        stream,
        environment.now(),
        metadata,
    );
    if text.len().is_multiple_of(2) {
        record.traceparent = Some(format!("00-{:032x}-{:016x}-01", 7, text.len()).into());
    }
    record
}

/// A batch of `len` records with the term of `writer`.
fn batch(writer: &Writer, len: usize) -> Batch {
    batch_of(writer.term(), len)
}

fn batch_of(term: u64, len: usize) -> Batch {
    let records = (0..len).map(|index| record(&format!("{term}/{index}"))).collect();
    Batch { id: System::new().uuid(), term, records }
}

/// Appends a batch, which must succeed, and returns it.
async fn append(writer: &mut Writer, len: usize) -> Batch {
    let batch = batch(writer, len);
    let offsets = within(writer.append(&batch)).await.expect("the batch is appended");
    assert_eq!(offsets.len(), len, "an offset for each record");
    batch
}

/// Opens the partition as a new node. Returns the writer and all batches from `from` to its claim.
async fn open_from(
    log: &dyn EventLog,
    partition: Partition,
    from: Cursor,
) -> (Writer, Vec<StoredBatch>) {
    let environment = System::new();
    let mut history = Vec::new();
    let node = environment.uuid();
    let opened = within(opening::open(log, &environment, partition, node, from, |batch| {
        history.push(batch);
    }));
    let (writer, _) = opened.await.expect("the partition opens");
    (writer, history)
}

/// Opens the partition for a test that does not need the history.
async fn open(log: &dyn EventLog, partition: Partition) -> Writer {
    open_from(log, partition, Cursor::START).await.0
}

/// Reads from `from` up to and including the batch `last`. Returns the batches and the void records
/// on the way.
async fn read_to(
    log: &dyn EventLog,
    partition: Partition,
    from: Cursor,
    last: Uuid,
) -> (Vec<StoredBatch>, Vec<Void>) {
    within(async {
        let mut reader = BatchReader::open(log, partition, from).await.expect("reading begins");
        let mut batches: Vec<StoredBatch> = Vec::new();
        while !batches.iter().any(|batch| batch.id == last) {
            batches.extend(reader.next().await.expect("the log reads").batches);
        }
        (batches, reader.take_void())
    })
    .await
}

/// The ids of the batches that are not claims.
fn ids(batches: &[StoredBatch]) -> Vec<Uuid> {
    batches.iter().filter(|batch| Claim::of(batch).is_none()).map(|batch| batch.id).collect()
}

/// Fences lane `lane` and commits a batch through it unchanged, without a writer.
async fn commit_raw(log: &dyn EventLog, lane: usize, batch: &Batch) {
    let mut lane = within(log.fence(P, lane)).await.expect("the lane is taken");
    within(lane.commit(batch)).await.expect("the batch is committed");
}
