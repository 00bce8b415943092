//! Snapshots in files.

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

/// One file for each partition, in a folder that may be deleted at any time.
#[derive(Debug)]
pub struct SnapshotFiles {
    folder: PathBuf,
    /// Locked while a file is written, because two snapshots of one partition must not mix.
    writing: Arc<Mutex<()>>,
}

impl SnapshotFiles {
    /// Stores files in `folder`, and creates it if it is missing.
    ///
    /// # Errors
    /// If the folder cannot be created.
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
        // The panic handler reports a panic; here it only means that there is no snapshot.
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
            "a snapshot could not be saved: the next start takes longer"
        );
    }
}

fn read(path: &Path) -> Option<PartitionSnapshot> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => {
            let error = &error as &dyn Error;
            warn!(path = %path.display(), error, "a snapshot cannot be opened: it is ignored");
            return None;
        }
    };
    match PartitionSnapshot::read(BufReader::with_capacity(1 << 18, file)) {
        Ok(snapshot) => Some(snapshot),
        Err(SnapshotError::OtherCode) => {
            info!(path = %path.display(), "a snapshot of another build is ignored");
            None
        }
        Err(error) => {
            let error = &error as &dyn Error;
            warn!(path = %path.display(), error, "a snapshot cannot be read: it is ignored");
            None
        }
    }
}

/// Writes the file completely or not at all: after a crash, the previous file is still there.
fn write(path: &Path, snapshot: &PartitionSnapshot) -> io::Result<()> {
    let beside = path.with_extension("new");
    let file = File::create(&beside)?;
    snapshot.write(BufWriter::with_capacity(1 << 18, &file))?;
    file.sync_data()?;
    fs::rename(&beside, path)
}
