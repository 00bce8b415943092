//! The simulated network between a process and the log. It delays and loses messages. A message
//! that was sent arrives even if its sender dies.

use super::world::{OUTSIDE, ProcessId, World};
use async_trait::async_trait;
use events::{
    Offset, Partition,
    log::{
        AppendError, Batch, Committed, EventLog, Lane, LogFault, RawChunk, ReadError, RecordReader,
        memory::MemoryLog,
    },
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::{Mutex, oneshot};

/// How often messages are lost, and how long they take.
#[derive(Default)]
pub struct Weather {
    /// One message in this many is lost; 0 loses none.
    lost_one_in: AtomicU64,
    /// The longest delay of a message, in µs.
    slow_micros: AtomicU64,
}

impl Weather {
    pub fn set(&self, lost_one_in: u64, slow: Duration) {
        self.lost_one_in.store(lost_one_in, Relaxed);
        self.slow_micros.store(slow.as_micros().try_into().unwrap(), Relaxed);
    }
}

/// The message did not arrive.
#[derive(Debug, thiserror::Error)]
#[error("the connection is lost")]
struct Lost;

/// The log, as a process reaches it over the network.
#[derive(Clone)]
pub struct Network {
    pub memory: MemoryLog,
    pub world: Arc<World>,
    pub process: ProcessId,
    pub weather: Arc<Weather>,
}

impl Network {
    /// Delays or loses one message, in either direction.
    async fn travel(&self) -> Result<(), Lost> {
        let slow = self.weather.slow_micros.load(Relaxed);
        if slow > 0 {
            self.world.sleep(Duration::from_micros(self.world.below(slow))).await;
        } else {
            tokio::task::yield_now().await;
        }
        let one_in = self.weather.lost_one_in.load(Relaxed);
        if one_in > 0 && self.world.once_in(one_in) {
            // The loss shows only as a time-out.
            self.world.sleep(Duration::from_millis(500 + self.world.below(5000))).await;
            return Err(Lost);
        }
        Ok(())
    }

    fn unavailable(lost: Lost) -> ReadError {
        ReadError::Unavailable(lost.into())
    }
}

#[async_trait]
impl EventLog for Network {
    fn partitions(&self) -> u32 {
        self.memory.partitions()
    }

    async fn fence(&self, partition: Partition, lane: usize) -> Result<Box<dyn Lane>, LogFault> {
        self.travel().await?;
        let taken = self.memory.fence(partition, lane).await?;
        self.travel().await?;
        Ok(Box::new(RemoteLane { network: self.clone(), lane: Arc::new(Mutex::new(taken)) }))
    }

    async fn read(
        &self,
        partition: Partition,
        from: Offset,
    ) -> Result<Box<dyn RecordReader>, ReadError> {
        self.travel().await.map_err(Self::unavailable)?;
        let reader = self.memory.read(partition, from).await?;
        Ok(Box::new(RemoteReader { network: self.clone(), reader }))
    }

    async fn end(&self, partition: Partition) -> Result<Offset, ReadError> {
        self.travel().await.map_err(Self::unavailable)?;
        self.memory.end(partition).await
    }
}

struct RemoteLane {
    network: Network,
    lane: Arc<Mutex<Box<dyn Lane>>>,
}

#[async_trait]
impl Lane for RemoteLane {
    async fn commit(&mut self, batch: &Batch) -> Result<Committed, AppendError> {
        let unknown = |lost: Lost| AppendError::Unknown(lost.into());
        let (answer, answered) = oneshot::channel();
        let (network, lane, batch) = (self.network.clone(), Arc::clone(&self.lane), batch.clone());
        // Once sent, the request does not need its sender any more.
        self.network.world.spawn(
            OUTSIDE,
            Box::pin(async move {
                if network.travel().await.is_ok() {
                    let committed = lane.lock().await.commit(&batch).await;
                    // The sender may be dead.
                    let _ = answer.send(committed);
                }
            }),
        );
        let committed = answered.await.map_err(|_| unknown(Lost))?;
        self.network.travel().await.map_err(unknown)?;
        committed
    }
}

struct RemoteReader {
    network: Network,
    reader: Box<dyn RecordReader>,
}

#[async_trait]
impl RecordReader for RemoteReader {
    async fn next(&mut self) -> Result<RawChunk, ReadError> {
        // Travel before the reader moves on, so that a caller that gives up loses no records.
        self.network.travel().await.map_err(Network::unavailable)?;
        self.reader.next().await
    }
}
