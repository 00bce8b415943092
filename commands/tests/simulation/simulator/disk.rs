//! The simulated disk for snapshots. It is slow, loses snapshots and damages some.

use super::world::World;
use async_trait::async_trait;
use commands::{PartitionSnapshot, SnapshotStore};
use events::Partition;
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

/// A disk shared by all processes.
pub struct Disk {
    world: Arc<World>,
    every: usize,
    files: Mutex<BTreeMap<Partition, Vec<u8>>>,
}

impl Disk {
    pub fn new(world: &Arc<World>) -> Arc<Self> {
        let every = 1 + usize::try_from(world.below(40)).unwrap();
        Arc::new(Self { world: Arc::clone(world), every, files: Mutex::default() })
    }

    async fn dawdle(&self) {
        if self.world.once_in(4) {
            let most = Duration::from_millis(1 + self.world.below(200));
            self.world.sleep(most).await;
        }
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Disk")
    }
}

#[async_trait]
impl SnapshotStore for Disk {
    fn every(&self) -> usize {
        self.every
    }

    async fn load(&self, partition: Partition) -> Option<PartitionSnapshot> {
        self.dawdle().await;
        let bytes = self.files.lock().unwrap().get(&partition).cloned()?;
        PartitionSnapshot::read(&bytes[..]).ok()
    }

    async fn save(&self, snapshot: PartitionSnapshot) {
        self.dawdle().await;
        let mut bytes = Vec::new();
        snapshot.write(&mut bytes).unwrap();
        match self.world.below(12) {
            0 => return,
            1 => {
                let at = usize::try_from(self.world.below(bytes.len() as u64)).unwrap();
                bytes[at] ^= 1 << self.world.below(8);
            }
            2 => {
                let at = usize::try_from(self.world.below(bytes.len() as u64)).unwrap();
                bytes.truncate(at);
            }
            _ => {}
        }
        self.files.lock().unwrap().insert(snapshot.partition(), bytes);
    }
}
