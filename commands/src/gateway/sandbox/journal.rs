//! The sandbox's journal: one JSON object per line. Several processes may share it.

use events::Money;
use serde::{Deserialize, Serialize};
use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, BufRead, BufReader, Seek, SeekFrom, Write},
    path::Path,
    sync::Arc,
};

/// A line of the journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "did", rename_all = "snake_case")]
pub(super) enum Entry {
    Created { payment_id: Arc<str>, key: String, amount: Money, method: String },
    Failed { payment_id: Arc<str> },
    Captured { payment_id: Arc<str>, amount: Money },
    Declined { payment_id: Arc<str>, code: Arc<str> },
    Voided { payment_id: Arc<str> },
    Refunded { payment_id: Arc<str>, refund_id: Arc<str>, amount: Money },
}

/// The open file, and how much of it this process has read.
pub(super) struct Journal {
    file: File,
    bytes: u64,
    lines: u64,
}

impl Journal {
    /// Opens the journal at `path` without reading it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        Ok(Self { file, bytes: 0, lines: 0 })
    }

    /// Locks the file against other processes. `false` if another process holds the lock.
    pub fn try_lock(&self) -> io::Result<bool> {
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    pub fn unlock(&self) {
        // The system releases the lock when the process ends at the latest.
        let _ = self.file.unlock();
    }

    /// Reads the entries that any process has written since the last call. Removes a last line that
    /// a dead process left incomplete: its entry was never acknowledged.
    pub fn read_on(&mut self) -> io::Result<Vec<Entry>> {
        let length = self.file.metadata()?.len();
        if length == self.bytes {
            return Ok(Vec::new());
        }
        self.file.seek(SeekFrom::Start(self.bytes))?;
        let mut reader = BufReader::new(&self.file);
        let (mut line, mut entries) = (Vec::new(), Vec::new());
        let (mut bytes, mut lines) = (self.bytes, self.lines);
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line)?;
            let Some(entry) = line.strip_suffix(b"\n") else { break };
            (bytes, lines) = (bytes + read as u64, lines + 1);
            let entry = serde_json::from_slice(entry).map_err(|error| {
                let told = format!("line {lines} is damaged: {error}");
                io::Error::new(io::ErrorKind::InvalidData, told)
            })?;
            entries.push(entry);
        }
        if bytes < length {
            self.file.set_len(bytes)?;
        }
        (self.bytes, self.lines) = (bytes, lines);
        Ok(entries)
    }

    /// Appends a line completely or not at all. If a full disk left half a line, the next line
    /// would become unreadable.
    pub fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        if let Err(error) = self.file.write_all(&line) {
            // If this fails too, the next process to lock the journal removes the half line.
            let _ = self.file.set_len(self.bytes);
            return Err(error);
        }
        self.bytes += line.len() as u64;
        self.lines += 1;
        Ok(())
    }
}
