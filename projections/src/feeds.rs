//! The tasks that a projector runs: what each one does, on which versions, and how it is ended.

use crate::{
    lease::Share,
    version::{Version, VersionId},
    worker::{Reached, Shares},
};
use events::{Offset, Partition, Timestamp};
use std::{
    collections::BTreeMap,
    error::Error,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// Identifies a task of the projector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FeedKey {
    /// Feeds the versions that are close to the end, for a group of partitions.
    Together(usize),
    /// Feeds one version that is far behind, for a group of partitions.
    Apart(VersionId, usize),
    /// Fills new versions in bulk, for one partition. The key names the first of the versions.
    Bulk(VersionId, Partition),
    /// Makes the indexes of a version that was filled in bulk. Feeds no partition.
    Indexes(VersionId),
    /// Compares a new version with the serving one. Feeds no partition.
    Verify(VersionId),
}

/// How far the serving versions that this process feeds are behind the part of the log that it has
/// read. Clones share the value.
#[derive(Clone, Default)]
pub(crate) struct Live(Arc<Mutex<BTreeMap<Share, Timestamp>>>);

impl Live {
    /// Notes the time of the oldest event that is not applied yet; `None` when all are.
    pub fn set(&self, share: Share, waits_since: Option<Timestamp>) {
        let mut waits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match waits_since {
            Some(since) => {
                waits.insert(share, since);
            }
            None => {
                waits.remove(&share);
            }
        }
    }

    /// The age of the oldest event that is not applied yet.
    pub fn lag(&self, now: Timestamp) -> Duration {
        let waits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = waits.values().min();
        oldest.and_then(|since| (now - since).to_std().ok()).unwrap_or_default()
    }
}

/// A task that runs.
pub(crate) struct Running {
    pub shares: Shares,
    pub reached: Reached,
    pub stop: CancellationToken,
    pub task: AbortOnDropHandle<()>,
}

impl Running {
    /// Whether the task feeds exactly these versions. A version whose state has changed counts as
    /// another one.
    pub fn feeds(&self, shares: &Shares) -> bool {
        let same = |(ours, theirs): (&Vec<Arc<Version>>, &Vec<Arc<Version>>)| {
            ours.len() == theirs.len()
                && ours.iter().zip(theirs).all(|(one, other)| Arc::ptr_eq(one, other))
        };
        !self.task.is_finished()
            && self.shares.keys().eq(shares.keys())
            && self.shares.values().zip(shares.values()).all(same)
    }

    /// Whether the task fills versions and has got past waiting for its turn.
    pub fn fills(&self, key: &FeedKey) -> bool {
        let over = self.stop.is_cancelled() || self.task.is_finished();
        matches!(key, FeedKey::Bulk(..)) && !over && !self.reached().is_empty()
    }

    pub async fn end(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(error = &error as &dyn Error, "a task of the projector panicked");
        }
    }

    /// How far the task has fed each of its partitions.
    pub fn reached(&self) -> BTreeMap<Share, Offset> {
        self.reached.all()
    }
}
