//! The mark: a record of what was acknowledged, in a file next to the log's database.
//!
//! SQLite silently ignores its write-ahead log from the first frame with a wrong checksum on. It
//! cannot tell a torn commit that was never acknowledged from damage to acknowledged data. So after
//! each commit, and before any caller is answered, the end of each partition and the checksum of
//! its last batch are written to `log.mark`. A log that does not contain them is refused.
//!
//! The mark is not synced with each commit. After a crash of the process it is exact. After a power
//! cut it may be as old as the system's write-back delay (about half a minute), but it is never
//! ahead of the log. Two slots are written in turn, so that a torn write leaves the other slot
//! intact.

use super::store::BatchRow;
use crate::Offset;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Slots begin at multiples of the page size, so that the system never tears a small slot.
const PAGE: usize = 4_096;

/// Size of a slot's head: checksum, number of partitions, sequence number.
const HEAD: usize = 4 + 4 + 8;

/// Size of one edge: end of the partition and checksum of its last batch.
const EDGE: usize = 8 + 4;

/// An upper bound for the number of partitions. A slot with more is not a mark.
const MAX_EDGES: usize = 1 << 16;

/// The end of a partition: its offset and its last batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edge {
    /// The offset at which the next batch begins.
    pub end: Offset,
    /// The checksum of the last batch; 0 if there is none.
    pub crc: u32,
}

impl Edge {
    /// The edge of an empty partition.
    pub const START: Self = Self { end: Offset::START, crc: 0 };

    /// The edge after a batch.
    pub fn behind(row: &BatchRow) -> Self {
        Self { end: row.next, crc: row.crc }
    }
}

/// The end offsets of the partitions.
pub(super) fn ends(edges: &[Edge]) -> Vec<Offset> {
    edges.iter().map(|edge| edge.end).collect()
}

/// The path of the mark in `dir`.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join("log.mark")
}

/// Reads the edges from the mark; `None` if there is no valid mark.
pub(super) fn read(dir: &Path) -> io::Result<Option<Vec<Edge>>> {
    let bytes = match std::fs::read(path(dir)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(newest(&bytes).map(|(_, edges)| edges))
}

/// The newer one of the valid slots.
fn newest(bytes: &[u8]) -> Option<(u64, Vec<Edge>)> {
    // The distance between the slots depends on the number of partitions, so try every page. There
    // are only a few.
    let slots = (0..bytes.len()).step_by(PAGE).filter_map(|at| unpack(&bytes[at..]));
    slots.max_by_key(|&(sequence, _)| sequence)
}

fn pack(sequence: u64, edges: &[Edge]) -> Vec<u8> {
    let mut slot = vec![0; 4];
    slot.extend_from_slice(&u32::try_from(edges.len()).unwrap_or(u32::MAX).to_be_bytes());
    slot.extend_from_slice(&sequence.to_be_bytes());
    for edge in edges {
        slot.extend_from_slice(&edge.end.0.to_be_bytes());
        slot.extend_from_slice(&edge.crc.to_be_bytes());
    }
    let crc = crc32fast::hash(&slot[4..]);
    slot[..4].copy_from_slice(&crc.to_be_bytes());
    slot
}

fn unpack(bytes: &[u8]) -> Option<(u64, Vec<Edge>)> {
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let crc = u32::from_be_bytes(head[..4].try_into().ok()?);
    let count = u32::from_be_bytes(head[4..8].try_into().ok()?) as usize;
    let sequence = u64::from_be_bytes(head[8..].try_into().ok()?);
    if !(1..=MAX_EDGES).contains(&count) {
        return None;
    }
    let edges = rest.get(..count * EDGE)?;
    if crc32fast::hash(&bytes[4..HEAD + edges.len()]) != crc {
        return None;
    }
    let (edges, _) = edges.as_chunks::<EDGE>();
    let edge = |bytes: &[u8; EDGE]| {
        let (end, crc) = bytes.split_at(8);
        let end = Offset(i64::from_be_bytes(end.try_into().ok()?));
        Some(Edge { end, crc: u32::from_be_bytes(crc.try_into().ok()?) })
    };
    Some((sequence, edges.iter().map(edge).collect::<Option<_>>()?))
}

/// The mark of a log that this process writes to.
pub(super) struct Mark {
    file: File,
    sequence: u64,
    /// Whether the last write failed; only the first failure is logged as a warning.
    failing: bool,
}

impl Mark {
    /// Opens the mark and writes `edges`, the current ends of the log, to it durably.
    pub fn open(dir: &Path, edges: &[Edge]) -> io::Result<Self> {
        let options =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
        let file = options.open(path(dir))?;
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut &file, &mut bytes)?;
        let sequence = newest(&bytes).map_or(0, |(sequence, _)| sequence);
        let mut mark = Self { file, sequence, failing: false };
        mark.put(edges)?;
        mark.put(edges)?;
        mark.file.sync_all()?;
        Ok(mark)
    }

    /// Writes the current ends of the log. If that fails, the mark is only out of date, which is no
    /// reason to fail a durable commit.
    pub fn note(&mut self, edges: &[Edge]) {
        let failing = match self.put(edges) {
            Ok(()) => false,
            Err(error) if self.failing => {
                tracing::debug!(%error, "the mark of the log still cannot be written");
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the mark of the log cannot be written and is out of date");
                true
            }
        };
        self.failing = failing;
    }

    /// Syncs the mark to disk.
    pub fn sync(&self) {
        if let Err(error) = self.file.sync_data() {
            tracing::warn!(%error, "the mark of the log could not be synced to disk");
        }
    }

    fn put(&mut self, edges: &[Edge]) -> io::Result<()> {
        let sequence = self.sequence + 1;
        let slot = pack(sequence, edges);
        let size = slot.len().next_multiple_of(PAGE) as u64;
        self.file.write_all_at(&slot, (sequence % 2) * size)?;
        self.sequence = sequence;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn edges(ends: &[i64]) -> Vec<Edge> {
        ends.iter().map(|&end| Edge { end: Offset(end), crc: 7 }).collect()
    }

    #[test]
    fn the_newest_slot_counts_and_a_torn_one_leaves_the_other() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
        let mut mark = Mark::open(dir.path(), &edges(&[0, 0])).unwrap();
        mark.note(&edges(&[3, 0]));
        mark.note(&edges(&[3, 5]));
        assert_eq!(read(dir.path()).unwrap(), Some(edges(&[3, 5])));
        let torn = (mark.sequence % 2) * PAGE as u64 + 10;
        mark.file.write_all_at(&[0xff; 3], torn).unwrap();
        assert_eq!(read(dir.path()).unwrap(), Some(edges(&[3, 0])));
        let reopened = Mark::open(dir.path(), &edges(&[3, 5])).unwrap();
        assert_eq!(read(dir.path()).unwrap(), Some(edges(&[3, 5])));
        drop(reopened);
        std::fs::write(path(dir.path()), b"").unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
    }

    proptest! {
        #[test]
        fn what_was_packed_unpacks_and_no_bit_of_it_may_flip(
            sequence: u64,
            ends in prop::collection::vec(any::<(i64, u32)>(), 1..20),
            flip: prop::sample::Index,
        ) {
            let edges: Vec<_> =
                ends.into_iter().map(|(end, crc)| Edge { end: Offset(end), crc }).collect();
            let mut slot = pack(sequence, &edges);
            prop_assert_eq!(unpack(&slot), Some((sequence, edges)));
            let bit = flip.index(slot.len() * 8);
            slot[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(unpack(&slot), None);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = newest(&bytes);
        }
    }
}
