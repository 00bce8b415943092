//! One partition in memory.

use super::Fault;
use crate::Offset;
use crate::log::{AppendError, Batch, Committed, LANES, RawRecord};
use std::collections::VecDeque;
use tokio::sync::oneshot;

/// Where a reader's chunk ends, in records: small, so that histories come in pieces.
const CHUNK_RECORDS: usize = 100;

#[derive(Default)]
pub(super) struct State {
    /// In order; each begins behind the gap of the one before.
    batches: Vec<Landed>,
    /// Batches that readers can see.
    visible: usize,
    pub veil: Veil,
    pub epochs: [u64; LANES],
    /// Lanes whose last commit request will come again.
    pub strays: [bool; LANES],
    pub faults: VecDeque<Fault>,
    pub held: Vec<Held>,
    pub ghosts: Vec<Batch>,
}

struct Landed {
    records: Vec<RawRecord>,
    /// Behind the batch and its gap.
    next: Offset,
}

/// A commit that waits to be let go.
pub(super) struct Held {
    pub batch: Batch,
    pub lane: usize,
    pub answer: oneshot::Sender<Result<Committed, AppendError>>,
}

/// How long what lands stays unseen.
#[derive(Default)]
pub(super) enum Veil {
    #[default]
    None,
    UntilRevealed,
    ForLooks(u32),
}

impl State {
    /// Where the next batch begins.
    pub fn next(&self) -> Offset {
        self.batches.last().map_or(Offset::START, |landed| landed.next)
    }

    /// Where the visible part ends.
    pub fn end(&self) -> Offset {
        self.visible.checked_sub(1).map_or(Offset::START, |last| self.batches[last].next)
    }

    /// Takes a lane: gives its new epoch, and the held commits that will never land.
    pub fn fence(&mut self, lane: usize) -> (u64, Vec<Held>) {
        self.epochs[lane] += 1;
        self.strays[lane] = false;
        let held = std::mem::take(&mut self.held);
        let (fenced, held) = held.into_iter().partition(|held| held.lane == lane);
        self.held = held;
        (self.epochs[lane], fenced)
    }

    /// Lands the first `keep` records of a batch and a gap of `gap` offsets behind them; gives
    /// their offsets.
    pub fn land(&mut self, batch: &Batch, keep: usize, gap: i64) -> Vec<Offset> {
        // The log itself hands out offsets, so here alone they are counted.
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

    /// Lands the first half of a batch; gives the offsets that all of it would have.
    pub fn land_half(&mut self, batch: &Batch, gap: i64) -> Vec<Offset> {
        let first = self.next().0;
        self.land(batch, batch.records.len() / 2, gap);
        (first..).map(Offset).take(batch.records.len()).collect()
    }

    pub fn reveal(&mut self) {
        self.veil = Veil::None;
        self.visible = self.batches.len();
    }

    /// Somebody looked in vain. Whether looking again will show more one day.
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

    /// All records from `from` on, and where the next batch begins.
    pub fn landed(&self, from: Offset) -> (Vec<RawRecord>, Offset) {
        let begin = self.batches.partition_point(|landed| landed.next <= from);
        let records = self.batches[begin..].iter().flat_map(|landed| &landed.records);
        (records.filter(|raw| raw.offset >= from).cloned().collect(), self.next())
    }

    /// Visible records from `from` on, where the next ones begin, and whether these were all.
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
