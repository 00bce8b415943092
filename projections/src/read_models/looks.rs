//! Looks at the end of the log, which requests share.
//!
//! A request for something that does not exist asks where its partition ends. Anybody may ask for
//! such things, and with Kafka each look is a request to a broker. So at most one look at a partition
//! is under way, and all requests that came before it began take its result.

use events::{
    Offset, Partition,
    log::{EventLog, ReadError},
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::sync::Mutex;

/// The looks at each partition. Clones share them.
#[derive(Clone)]
pub(super) struct Looks(Arc<[Looked]>);

#[derive(Default)]
struct Looked {
    /// The number of looks that have begun.
    begun: AtomicU64,
    /// The last look that succeeded: its number, and where the partition ended.
    last: Mutex<Option<(u64, Offset)>>,
}

impl Looks {
    pub fn new(partitions: u32) -> Self {
        Self((0..partitions).map(|_| Looked::default()).collect())
    }

    /// Where `partition` ends, from a look that began after this call.
    pub async fn end_of(
        &self,
        log: &Arc<dyn EventLog>,
        partition: Partition,
    ) -> Result<Offset, ReadError> {
        let Some(looked) = self.0.get(partition.0 as usize) else {
            return log.acknowledged(partition).await;
        };
        let before = looked.begun.load(Ordering::SeqCst);
        let mut last = looked.last.lock().await;
        match *last {
            Some((number, end)) if number > before => return Ok(end),
            _ => {}
        }
        let number = looked.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let end = log.acknowledged(partition).await?;
        *last = Some((number, end));
        Ok(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use events::{environment::System, log::memory::MemoryLog};
    use futures::future::join_all;

    #[tokio::test]
    async fn requests_share_a_look_that_began_after_they_came() {
        let log: Arc<dyn EventLog> = Arc::new(MemoryLog::new(1, Arc::new(System::new())));
        let (looks, partition) = (Looks::new(1), Partition(0));
        let begun = || looks.0[0].begun.load(Ordering::SeqCst);
        let held = looks.0[0].last.lock().await;
        let waiting = join_all((0..100).map(|_| looks.end_of(&log, partition)));
        tokio::pin!(waiting);
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        drop(held);
        for end in waiting.await {
            assert_eq!(end.unwrap(), Offset::START);
        }
        assert_eq!(begun(), 1, "all of them came before it began");
        looks.end_of(&log, partition).await.unwrap();
        assert_eq!(begun(), 2, "the next one came after");
    }
}
