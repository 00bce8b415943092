//! The sandbox's journal: one JSON object a line, written by any of the processes that share it.

use events::Money;
use serde::{Deserialize, Serialize};
use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, BufRead, BufReader, Seek, SeekFrom, Write},
    path::Path,
    sync::Arc,
};

/// One line.
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

/// The file, and how much of it has been read.
pub(super) struct Journal {
    file: File,
    bytes: u64,
    lines: u64,
}

impl Journal {
    /// The journal at `path`, nothing of it read yet.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        Ok(Self { file, bytes: 0, lines: 0 })
    }

    /// Keeps all others out, unless one of them keeps us out.
    pub fn try_lock(&self) -> io::Result<bool> {
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    pub fn unlock(&self) {
        // The system does it at the latest when the process ends.
        let _ = self.file.unlock();
    }

    /// What was written since, by whomever. Who died while writing leaves half a line, which never was.
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

    /// Adds a line, or nothing: half a line, on a full disk, would make nonsense of the next one.
    pub fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        if let Err(error) = self.file.write_all(&line) {
            // If this fails too, whoever has the next turn cuts it off.
            let _ = self.file.set_len(self.bytes);
            return Err(error);
        }
        self.bytes += line.len() as u64;
        self.lines += 1;
        Ok(())
    }
}
