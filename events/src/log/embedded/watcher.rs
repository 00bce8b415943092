//! Follows a log that another process writes.

use super::reader::Shared;
use super::store;
use rusqlite::Connection;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How often to read the ends of the partitions from the file; each time is one small read.
const INTERVAL: Duration = Duration::from_millis(20);

/// A thread that reads the ends of the partitions until this is dropped.
pub(super) struct Watcher {
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    pub fn start(connection: Connection, shared: Arc<Shared>) -> std::io::Result<Self> {
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopped);
        let watch = move || {
            while !stop.load(Ordering::Acquire) {
                // A failed read only causes a delay. If the fault persists, readers of the records
                // report it.
                if let Ok(ends) = store::read_ends(&connection) {
                    shared.move_ends(&ends);
                }
                thread::park_timeout(INTERVAL);
            }
        };
        let thread = thread::Builder::new().name("log-watch".to_owned()).spawn(watch)?;
        Ok(Self { stopped, thread: Some(thread) })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The thread ends after its current read. Its result does not matter any more.
            let _ = thread.join();
        }
    }
}
