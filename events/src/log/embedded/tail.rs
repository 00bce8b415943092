//! The most recent batches of a partition, for readers that keep up, and the end of the partition.

use super::store::{BatchRow, CHUNK};
use crate::Offset;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// See the [module](self).
pub(super) struct Tail {
    recent: Mutex<Recent>,
    end: watch::Sender<Offset>,
    /// Size of the batches to keep, in bytes.
    limit: usize,
}

#[derive(Default)]
struct Recent {
    /// In order and without holes, up to the end.
    rows: VecDeque<BatchRow>,
    bytes: usize,
}

impl Tail {
    pub fn new(end: Offset, limit: usize) -> Self {
        Self { recent: Mutex::default(), end: watch::Sender::new(end), limit }
    }

    /// The end of the partition.
    pub fn end(&self) -> Offset {
        *self.end.borrow()
    }

    /// A receiver that is notified when the end moves.
    pub fn watch(&self) -> watch::Receiver<Offset> {
        self.end.subscribe()
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a durable batch and makes it visible.
    pub fn push(&self, row: BatchRow) {
        let end = row.next;
        let mut recent = self.recent();
        recent.bytes += row.frames.len();
        recent.rows.push_back(row);
        while recent.bytes > self.limit
            && let Some(old) = recent.rows.pop_front()
        {
            recent.bytes -= old.frames.len();
        }
        drop(recent);
        self.move_end(end);
    }

    /// Moves the end of the partition to `end`, unless it is already further on.
    pub fn move_end(&self, end: Offset) {
        self.end.send_if_modified(|known| {
            let moves = *known < end;
            *known = end.max(*known);
            moves
        });
    }

    /// At most a chunk of batches, beginning with the one that contains `from`; `None` if they are
    /// no longer kept.
    pub fn since(&self, from: Offset) -> Option<Vec<BatchRow>> {
        let recent = self.recent();
        if recent.rows.front().is_none_or(|row| row.first > from) {
            return None;
        }
        let begin = recent.rows.partition_point(|row| row.next <= from);
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for row in recent.rows.range(begin..) {
            // Each record has more than a hundred bytes, so this limits the number of records too.
            if bytes >= CHUNK.1 {
                break;
            }
            bytes += row.frames.len();
            rows.push(row.clone());
        }
        Some(rows)
    }
}
