//! The case of two openers whose steps interleave in every possible order.

use super::{Harness, P, append, batch_of, ids, open_from, within};
use crate::log::{
    Batch, BatchReader, Claim, Cursor, EventLog, Opening, StoredBatch, Writer, assembler::Void,
    opening::Step,
};
use crate::{Environment, environment::System};
use uuid::Uuid;

/// Fence two lanes, commit a claim, read it back, append a batch.
const STEPS: usize = 5;

/// The progress of an opener.
enum Stage<'a> {
    Fencing(Opening<'a>),
    Reading(Opening<'a>),
    Serving(Writer),
    Served(Writer),
    Failed,
}

struct Opener<'a> {
    stage: Stage<'a>,
    acknowledged: Vec<Uuid>,
    refused: Vec<Uuid>,
}

impl<'a> Opener<'a> {
    async fn begin(log: &'a dyn EventLog, environment: &'a System, from: Cursor) -> Self {
        let node = environment.uuid();
        let opening = Opening::begin(log, environment, P, node, from).await;
        let stage = Stage::Fencing(opening.expect("the log reads"));
        Self { stage, acknowledged: Vec::new(), refused: Vec::new() }
    }

    fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Served(_) | Stage::Failed)
    }

    async fn step(&mut self) {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Failed) {
            Stage::Fencing(mut opening) => match opening.fence_lane().await {
                Ok(true) => Stage::Fencing(opening),
                Ok(false) => Stage::Reading(opening),
                Err(_) => Stage::Failed,
            },
            Stage::Reading(opening) => match opening.next().await {
                Ok(Step::Read(_, opening)) => Stage::Reading(opening),
                Ok(Step::Open(_, writer)) => Stage::Serving(writer),
                Err(_) => Stage::Failed,
            },
            Stage::Serving(mut writer) => {
                self.try_append(&mut writer).await;
                Stage::Served(writer)
            }
            done => done,
        };
    }

    async fn try_append(&mut self, writer: &mut Writer) {
        let batch = batch_of(writer.term(), 2);
        match writer.append(&batch).await {
            Ok(_) => self.acknowledged.push(batch.id),
            Err(_) => self.refused.push(batch.id),
        }
    }
}

/// In every order of their steps, at most one of two openers can serve in the end, exactly the
/// acknowledged batches are visible, and the log has no batch of the loser after the winner's
/// claim.
pub async fn two_openers_in_every_order(harness: &dyn Harness) {
    let (one, two) = (harness.log().await, harness.log().await);
    let environment = System::new();
    // All schedules run one after another on one partition. Each starts where the previous one
    // ended.
    let mut from = Cursor::START;
    let schedules = schedules();
    let stride = schedules.len().div_ceil(harness.interleavings().max(1));
    for schedule in schedules.into_iter().step_by(stride) {
        let mut openers = [
            Opener::begin(&*one, &environment, from).await,
            Opener::begin(&*two, &environment, from).await,
        ];
        within(play(&mut openers, schedule)).await;
        from = assert_one_survivor(&*one, openers, from, schedule).await;
    }
}

/// Runs the steps in the order of the schedule, then lets both openers finish in turn.
async fn play(openers: &mut [Opener<'_>; 2], schedule: u32) {
    for turn in 0..2 * STEPS {
        openers[(schedule >> turn & 1) as usize].step().await;
    }
    while openers.iter().any(|opener| !opener.is_done()) {
        openers[0].step().await;
        openers[1].step().await;
    }
}

async fn assert_one_survivor(
    log: &dyn EventLog,
    openers: [Opener<'_>; 2],
    from: Cursor,
    schedule: u32,
) -> Cursor {
    let mut survivors = 0;
    let (mut acknowledged, mut refused) = (Vec::new(), Vec::new());
    for mut opener in openers {
        if let Stage::Served(mut writer) = std::mem::replace(&mut opener.stage, Stage::Failed)
            && !writer.is_spent()
        {
            opener.try_append(&mut writer).await;
            survivors += usize::from(!writer.is_spent());
        }
        acknowledged.extend(opener.acknowledged);
        refused.extend(opener.refused);
    }
    assert!(survivors <= 1, "both openers can append after schedule {schedule:010b}");

    let (mut judge, history) = open_from(log, P, from).await;
    let last: Batch = append(&mut judge, 1).await;
    let visible = ids(&history);
    assert!(
        acknowledged.iter().all(|id| visible.contains(id)),
        "an acknowledged batch is missing: {schedule:010b}"
    );
    assert!(
        visible.iter().all(|id| acknowledged.contains(id)),
        "a refused batch is visible: {schedule:010b}"
    );

    let (read, void, cursor) = read_behind(log, from, last.id).await;
    let ours = |id: &Uuid| acknowledged.contains(id) || refused.contains(id);
    let is_late = void.iter().any(|void| match void {
        Void::Torn { batch_id, .. } | Void::Overtaken { batch_id, .. } => ours(batch_id),
        Void::Foreign { .. } => false,
    });
    assert!(!is_late, "a batch of the loser follows the winner's claim: {schedule:010b}");
    assert_terms_grow(&read);
    cursor
}

/// Reads from `from` to the batch `last`. Returns the batches, the void records and the cursor
/// after `last`.
async fn read_behind(
    log: &dyn EventLog,
    from: Cursor,
    last: Uuid,
) -> (Vec<StoredBatch>, Vec<Void>, Cursor) {
    within(async {
        let mut reader = BatchReader::open(log, P, from).await.expect("reading begins");
        let mut batches: Vec<StoredBatch> = Vec::new();
        while batches.last().is_none_or(|batch| batch.id != last) {
            batches.extend(reader.next().await.expect("the log reads").batches);
        }
        (batches, reader.take_void(), reader.cursor())
    })
    .await
}

/// Every claim has a higher term than the one before, and the batches after a claim have its term.
fn assert_terms_grow(read: &[StoredBatch]) {
    let mut term = 0;
    for batch in read {
        if Claim::of(batch).is_some() {
            assert!(batch.term > term);
            term = batch.term;
        }
        assert!(batch.term == term || term == 0);
    }
}

/// Every order of the steps of the two openers. Bit n tells which opener takes turn n.
fn schedules() -> Vec<u32> {
    let turns = 2 * STEPS;
    (0..1u32 << turns).filter(|schedule| schedule.count_ones() as usize == STEPS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_schedules_as_ways_to_choose_five_turns_of_ten() {
        assert_eq!(schedules().len(), 252);
    }
}
