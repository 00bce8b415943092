//! Following a log that another process writes.

use super::reader::Shared;
use super::store;
use rusqlite::Connection;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How often the file is asked for news: one small read each.
const INTERVAL: Duration = Duration::from_millis(20);

/// A thread that looks where the partitions end, until it is dropped.
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
                // A read that fails is a delay: whoever reads the records learns of what stays.
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
            // It ends after the read under way; how it ended changes nothing any more.
            let _ = thread.join();
        }
    }
}
