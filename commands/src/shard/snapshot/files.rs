//! Snapshots as files of a folder.

use super::{PartitionSnapshot, SnapshotError, SnapshotStore};
use async_trait::async_trait;
use events::Partition;
use std::{
    error::Error,
    fs::{self, File},
    io::{self, BufReader, BufWriter, ErrorKind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use tracing::{info, warn};

/// One file a partition, in a folder that may be deleted at any time.
#[derive(Debug)]
pub struct SnapshotFiles {
    folder: PathBuf,
    /// Held while a file is written: two savings of one partition must not mix.
    writing: Arc<Mutex<()>>,
}

impl SnapshotFiles {
    /// In `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(folder: impl Into<PathBuf>) -> io::Result<Self> {
        let folder = folder.into();
        fs::create_dir_all(&folder)?;
        Ok(Self { folder, writing: Arc::default() })
    }

    fn path(&self, partition: Partition) -> PathBuf {
        self.folder.join(format!("{partition}.snapshot"))
    }
}

#[async_trait]
impl SnapshotStore for SnapshotFiles {
    async fn load(&self, partition: Partition) -> Option<PartitionSnapshot> {
        let path = self.path(partition);
        // A panic is told where it happens, and is no snapshot.
        tokio::task::spawn_blocking(move || read(&path)).await.ok().flatten()
    }

    async fn save(&self, snapshot: PartitionSnapshot) {
        let path = self.path(snapshot.partition());
        let writing = Arc::clone(&self.writing);
        let saved = tokio::task::spawn_blocking(move || {
            let _one = writing.lock().unwrap_or_else(PoisonError::into_inner);
            write(&path, &snapshot)
        });
        let error: Box<dyn Error + Send + Sync> = match saved.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.into(),
            Err(error) => error.into(),
        };
        warn!(
            error = &*error as &dyn Error,
            "a snapshot was not saved: the next start takes longer"
        );
    }
}

fn read(path: &Path) -> Option<PartitionSnapshot> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => {
            warn!(path = %path.display(), error = &error as &dyn Error, "a snapshot cannot be opened");
            return None;
        }
    };
    match PartitionSnapshot::read(BufReader::with_capacity(1 << 18, file)) {
        Ok(snapshot) => Some(snapshot),
        Err(SnapshotError::OtherCode) => {
            info!(path = %path.display(), "a snapshot of other code is passed over");
            None
        }
        Err(error) => {
            warn!(path = %path.display(), error = &error as &dyn Error, "a snapshot is passed over");
            None
        }
    }
}

/// Whole or not at all: a crash leaves the one before.
fn write(path: &Path, snapshot: &PartitionSnapshot) -> io::Result<()> {
    let beside = path.with_extension("new");
    let file = File::create(&beside)?;
    snapshot.write(BufWriter::with_capacity(1 << 18, &file))?;
    file.sync_data()?;
    fs::rename(&beside, path)
}
