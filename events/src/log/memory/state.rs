//! The state of one partition of the log in memory.

use super::Fault;
use crate::Offset;
use crate::log::{AppendError, Batch, Committed, LANES, RawRecord};
use std::collections::VecDeque;
use tokio::sync::oneshot;

/// The number of records at which a reader's chunk ends. It is small, so that histories are read in
/// pieces.
const CHUNK_RECORDS: usize = 100;

#[derive(Default)]
pub(super) struct State {
    /// In order; each begins after the gap of the previous one.
    batches: Vec<Landed>,
    /// The number of batches that readers can see.
    visible: usize,
    pub veil: Veil,
    pub epochs: [u64; LANES],
    /// Whether the last commit request of a lane will arrive a second time.
    pub strays: [bool; LANES],
    pub faults: VecDeque<Fault>,
    pub delayed: Vec<DelayedCommit>,
    pub ghosts: Vec<Batch>,
}

struct Landed {
    records: Vec<RawRecord>,
    /// The offset after the batch and its gap.
    next: Offset,
}

/// A commit that waits for [`MemoryLog::release`](super::MemoryLog::release).
pub(super) struct DelayedCommit {
    pub batch: Batch,
    pub lane: usize,
    pub answer: oneshot::Sender<Result<Committed, AppendError>>,
}

/// How long a batch that has landed stays invisible.
#[derive(Default)]
pub(super) enum Veil {
    #[default]
    None,
    UntilRevealed,
    ForLooks(u32),
}

impl State {
    /// The offset of the next batch.
    pub fn next(&self) -> Offset {
        self.batches.last().map_or(Offset::START, |landed| landed.next)
    }

    /// The end of the visible part.
    pub fn end(&self) -> Offset {
        self.visible.checked_sub(1).map_or(Offset::START, |last| self.batches[last].next)
    }

    /// Takes a lane. Returns its new epoch, and the delayed commits that will now never land.
    pub fn fence(&mut self, lane: usize) -> (u64, Vec<DelayedCommit>) {
        self.epochs[lane] += 1;
        self.strays[lane] = false;
        let delayed = std::mem::take(&mut self.delayed);
        let (fenced, delayed) = delayed.into_iter().partition(|commit| commit.lane == lane);
        self.delayed = delayed;
        (self.epochs[lane], fenced)
    }

    /// Lands the first `keep` records of a batch, with a gap of `gap` offsets after them. Returns
    /// their offsets.
    pub fn land(&mut self, batch: &Batch, keep: usize, gap: i64) -> Vec<Offset> {
        // The log itself assigns the offsets, so this is the one place that may calculate with
        // them.
        let first = self.next().0;
        let records: Vec<RawRecord> = (batch.records.iter().zip(batch.stamps()).zip(first..))
            .take(keep)
            .map(|((record, stamp), offset)| RawRecord {
                offset: Offset(offset),
                stamp,
                record: record.clone(),
            })
            .collect();
        let offsets: Vec<Offset> = records.iter().map(|raw| raw.offset).collect();
        let behind = offsets.last().map_or(first, |last| last.0 + 1);
        self.batches.push(Landed { records, next: Offset(behind + gap) });
        if matches!(self.veil, Veil::None) {
            self.visible = self.batches.len();
        }
        offsets
    }

    /// Lands the first half of a batch. Returns the offsets that the whole batch would have.
    pub fn land_half(&mut self, batch: &Batch, gap: i64) -> Vec<Offset> {
        let first = self.next().0;
        self.land(batch, batch.records.len() / 2, gap);
        (first..).map(Offset).take(batch.records.len()).collect()
    }

    pub fn reveal(&mut self) {
        self.veil = Veil::None;
        self.visible = self.batches.len();
    }

    /// Counts a look in vain. Returns whether hidden batches will become visible after more looks.
    pub fn look(&mut self) -> bool {
        let hidden = self.visible < self.batches.len();
        let Veil::ForLooks(looks) = &mut self.veil else { return false };
        if hidden {
            *looks = looks.saturating_sub(1);
            if *looks == 0 {
                self.reveal();
            }
        }
        hidden
    }

    /// All records from `from` on, and the offset of the next batch.
    pub fn landed(&self, from: Offset) -> (Vec<RawRecord>, Offset) {
        let begin = self.batches.partition_point(|landed| landed.next <= from);
        let records = self.batches[begin..].iter().flat_map(|landed| &landed.records);
        (records.filter(|raw| raw.offset >= from).cloned().collect(), self.next())
    }

    /// Visible records from `from` on, the offset of the next ones, and whether these were all.
    pub fn read(&self, from: Offset) -> (Vec<RawRecord>, Offset, bool) {
        let mut records = Vec::new();
        let mut next = from;
        let begin = self.batches.partition_point(|landed| landed.next <= from);
        for landed in self.batches.get(begin..self.visible).unwrap_or_default() {
            if records.len() >= CHUNK_RECORDS {
                break;
            }
            records.extend(landed.records.iter().filter(|raw| raw.offset >= from).cloned());
            next = landed.next;
        }
        (records, next, next >= self.end())
    }
}
