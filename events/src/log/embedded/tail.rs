//! The most recent batches of a partition, for readers that keep up, and where the partition ends.

use super::store::{CHUNK, Row};
use crate::Offset;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// See the [module](self).
pub(super) struct Tail {
    recent: Mutex<Recent>,
    end: watch::Sender<Offset>,
    /// Bytes of batches kept.
    limit: usize,
}

#[derive(Default)]
struct Recent {
    /// In order and without a hole, up to the end.
    rows: VecDeque<Row>,
    bytes: usize,
}

impl Tail {
    pub fn new(end: Offset, limit: usize) -> Self {
        Self { recent: Mutex::default(), end: watch::Sender::new(end), limit }
    }

    /// Where the partition ends.
    pub fn end(&self) -> Offset {
        *self.end.borrow()
    }

    /// Where the partition ends, to be waited on.
    pub fn watch(&self) -> watch::Receiver<Offset> {
        self.end.subscribe()
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a batch that is durable.
    pub fn push(&self, row: Row) {
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

    /// The partition ends here, or has been seen to end even further on.
    pub fn move_end(&self, end: Offset) {
        self.end.send_if_modified(|known| {
            let moves = *known < end;
            *known = end.max(*known);
            moves
        });
    }

    /// The batches from the one that covers `from` on, a chunk at most; `None` when they are no
    /// longer kept.
    pub fn since(&self, from: Offset) -> Option<Vec<Row>> {
        let recent = self.recent();
        if recent.rows.front().is_none_or(|row| row.first > from) {
            return None;
        }
        let begin = recent.rows.partition_point(|row| row.next <= from);
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for row in recent.rows.range(begin..) {
            // Each record takes more than a hundred bytes, so this bounds the records too.
            if bytes >= CHUNK.1 {
                break;
            }
            bytes += row.frames.len();
            rows.push(row.clone());
        }
        Some(rows)
    }
}
