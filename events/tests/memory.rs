//! The log in memory: the contract suite, and tests of its switches.

#![allow(clippy::unwrap_used)]

use async_trait::async_trait;
use events::environment::System;
use events::log::contract::{Harness, PARTITIONS, record};
use events::log::memory::{Fault, MemoryLog};
use events::log::{
    AppendError, Batch, BatchReader, Cursor, EventLog, Opening, StoredBatch, Writer,
    opening::{OpenError, Step, open},
};
use events::{Environment, Partition};
use futures::executor::block_on;
use futures::future::join;
use std::sync::Arc;
use uuid::Uuid;

const P: Partition = Partition(0);

struct Memory(MemoryLog);

#[async_trait]
impl Harness for Memory {
    async fn log(&self) -> Arc<dyn EventLog> {
        Arc::new(self.0.clone())
    }

    async fn tear(&self, partition: Partition, batch: &Batch, keep: usize) {
        self.0.cut(partition, batch, keep);
    }
}

mod contract {
    use super::{Memory, PARTITIONS, System};
    use events::log::memory::MemoryLog;
    use std::sync::Arc;

    events::log_contract!(Some(Memory(MemoryLog::new(PARTITIONS, Arc::new(System::new())))));
}

/// The tests below run without a runtime.
fn log() -> MemoryLog {
    MemoryLog::new(1, Arc::new(System::new()))
}

fn batch(writer: &Writer, len: usize) -> Batch {
    writer.batch(System::new().uuid(), (0..len).map(|_| record("late")).collect())
}

async fn opened(log: &MemoryLog) -> (Writer, Vec<Uuid>) {
    let mut history: Vec<StoredBatch> = Vec::new();
    let environment = System::new();
    let node = environment.uuid();
    let (writer, _) =
        open(log, &environment, P, node, Cursor::START, |batch| history.push(batch)).await.unwrap();
    (writer, history.iter().map(|batch| batch.id).collect())
}

/// Appends a batch with `fault`, then reopens. Returns the answer and whether the batch landed.
fn outcome_of(fault: Fault) -> (Result<(), AppendError>, bool) {
    block_on(async {
        let log = log();
        let (mut writer, _) = opened(&log).await;
        log.inject(P, [Fault::Clean, fault]);
        writer.append(&batch(&writer, 1)).await.unwrap();
        let batch = batch(&writer, 3);
        let answer = writer.append(&batch).await.map(drop);
        assert_eq!(writer.is_spent(), fault != Fault::Clean);
        log.deliver_ghosts(P);
        let landed = opened(&log).await.1.contains(&batch.id);
        (answer, landed)
    })
}

#[test]
fn each_fault_answers_and_lands_as_it_says() {
    assert!(matches!(outcome_of(Fault::Clean), (Ok(()), true)));
    assert!(matches!(outcome_of(Fault::Suspect), (Ok(()), true)));
    assert!(matches!(outcome_of(Fault::NotApplied), (Err(AppendError::NotApplied(_)), false)));
    assert!(matches!(outcome_of(Fault::UnknownLanded), (Err(AppendError::Unknown(_)), true)));
    assert!(matches!(outcome_of(Fault::UnknownLost), (Err(AppendError::Unknown(_)), false)));
    assert!(matches!(outcome_of(Fault::Cut(2)), (Err(AppendError::Unknown(_)), false)));
    // Before the next claim a ghost is only a late batch and counts.
    assert!(matches!(outcome_of(Fault::Ghost), (Err(AppendError::Unknown(_)), true)));
}

#[test]
fn a_ghost_after_the_next_claim_is_void() {
    block_on(async {
        let log = log();
        let (mut writer, _) = opened(&log).await;
        log.inject(P, [Fault::Ghost]);
        let ghost = batch(&writer, 2);
        writer.append(&ghost).await.unwrap_err();
        let (mut next, _) = opened(&log).await;
        log.deliver_ghosts(P);
        let after = batch(&next, 1);
        next.append(&after).await.unwrap();
        let (_, history) = opened(&log).await;
        assert!(history.contains(&after.id) && !history.contains(&ghost.id));
    });
}

#[test]
fn a_held_commit_lands_when_released() {
    block_on(async {
        let log = log();
        let (mut writer, _) = opened(&log).await;
        log.inject(P, [Fault::Hold]);
        let held = batch(&writer, 1);
        let release = async {
            assert_eq!(log.delayed(P), 1);
            log.release(P);
        };
        join(writer.append(&held), release).await.0.unwrap();
        assert!(opened(&log).await.1.contains(&held.id));
    });
}

#[test]
fn a_held_commit_never_lands_once_its_lane_is_fenced() {
    block_on(async {
        let log = log();
        let (mut writer, _) = opened(&log).await;
        log.inject(P, [Fault::Hold]);
        let held = batch(&writer, 1);
        let (answer, (_, history)) = join(writer.append(&held), opened(&log)).await;
        assert!(matches!(answer, Err(AppendError::NotApplied(_))), "{answer:?}");
        log.release(P);
        assert!(!history.contains(&held.id));
        assert!(!opened(&log).await.1.contains(&held.id));
    });
}

/// An opener that reads a stale end claims a term that is already taken. It must notice that and
/// claim again.
#[test]
fn an_opener_that_saw_a_stale_end_claims_again() {
    block_on(async {
        let log = log();
        log.hide(P);
        let environment = System::new();
        let node = environment.uuid();
        let first = Opening::begin(&log, &environment, P, node, Cursor::START).await.unwrap();
        let first = claimed(first).await;
        let second = Opening::begin(&log, &environment, P, node, Cursor::START).await.unwrap();
        let mut second = claimed(second).await;
        drop(first);
        log.reveal(P);
        let writer = loop {
            match second.next().await.unwrap() {
                Step::Read(_, next) => second = next,
                Step::Open(_, writer) => break writer,
            }
        };
        assert_eq!(writer.term(), 2, "term 1 belongs to the first opener");
    });
}

/// Another process claims between this one's read of the log and its first fence.
#[test]
fn a_yielding_opener_does_not_claim_after_another_process() {
    block_on(async {
        let (log, environment) = (log(), System::new());
        let [first, second] = [environment.uuid(), environment.uuid()];
        let start = Cursor::START;
        let (_, looked) = open(&log, &environment, P, first, start, |_| {}).await.unwrap();
        let (mut writer, _) = open(&log, &environment, P, second, start, |_| {}).await.unwrap();
        writer.append(&batch(&writer, 1)).await.unwrap();

        let opening = Opening::begin(&log, &environment, P, first, looked).await.unwrap();
        let mut opening = opening.yielding(true);
        while opening.fence_lane().await.unwrap() {}
        let end = log.end(P).await.unwrap();
        let taken = loop {
            match opening.next().await {
                Ok(Step::Read(_, next)) => opening = next,
                Ok(Step::Open(..)) => panic!("the partition was taken back from its new owner"),
                Err(error) => break error,
            }
        };
        assert!(matches!(taken, OpenError::Taken { node } if node == second), "{taken:?}");
        assert_eq!(log.end(P).await.unwrap(), end, "nothing was claimed");

        // It does not yield to its own claims.
        let (_, looked) = open(&log, &environment, P, first, start, |_| {}).await.unwrap();
        let opening = Opening::begin(&log, &environment, P, first, looked).await.unwrap();
        claimed(opening.yielding(true)).await;
    });
}

/// Drives an opening until its claim is committed but not yet read back.
async fn claimed(mut opening: Opening<'_>) -> Opening<'_> {
    while opening.fence_lane().await.unwrap() {}
    match opening.next().await.unwrap() {
        Step::Read(_, opening) => opening,
        Step::Open(..) => panic!("the claim is hidden"),
    }
}

#[test]
fn hidden_commits_become_visible_after_the_given_number_of_looks() {
    block_on(async {
        let log = log();
        let (mut writer, _) = opened(&log).await;
        let end = log.end(P).await.unwrap();
        let mut reader = BatchReader::open(&log, P, Cursor::START).await.unwrap();
        assert!(reader.next().await.unwrap().at_end);
        log.hide_for(P, 3);
        let hidden = batch(&writer, 1);
        writer.append(&hidden).await.unwrap();
        for _ in 0..2 {
            assert_eq!(
                log.end(P).await.unwrap(),
                end,
                "the commit is acknowledged but not visible"
            );
        }
        // The reader's look is the third one.
        assert_eq!(reader.next().await.unwrap().batches[0].id, hidden.id);
        assert!(log.end(P).await.unwrap() > end);
    });
}
