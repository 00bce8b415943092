//! What a projector has running: which feed, of what, and how it is ended.

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

/// Which feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FeedKey {
    /// Of what is close to each other, for a group of partitions.
    Together(usize),
    /// Of a version that is far behind, for a group of partitions.
    Apart(VersionId, usize),
    /// Of new versions in bulk, for one partition; the first of them.
    Bulk(VersionId, Partition),
    /// Of nothing: what makes the indexes of a version that was filled in bulk.
    Indexes(VersionId),
    /// Of nothing: what compares a new version with the serving one.
    Verify(VersionId),
}

/// How far the serving versions that this process feeds are behind what it knows of the log. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Live(Arc<Mutex<BTreeMap<Share, Timestamp>>>);

impl Live {
    /// What is not applied yet is from this moment, or all is.
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

    /// How old the oldest of it is.
    pub fn lag(&self, now: Timestamp) -> Duration {
        let waits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = waits.values().min();
        oldest.and_then(|since| (now - since).to_std().ok()).unwrap_or_default()
    }
}

/// A feed that runs.
pub(crate) struct Running {
    pub shares: Shares,
    pub reached: Reached,
    pub stop: CancellationToken,
    pub task: AbortOnDropHandle<()>,
}

impl Running {
    /// Whether it feeds exactly this. A version whose state has changed is another one.
    pub fn feeds(&self, shares: &Shares) -> bool {
        let same = |(ours, theirs): (&Vec<Arc<Version>>, &Vec<Arc<Version>>)| {
            ours.len() == theirs.len()
                && ours.iter().zip(theirs).all(|(one, other)| Arc::ptr_eq(one, other))
        };
        !self.task.is_finished()
            && self.shares.keys().eq(shares.keys())
            && self.shares.values().zip(shares.values()).all(same)
    }

    /// Whether it fills versions and is past waiting for its turn.
    pub fn fills(&self, key: &FeedKey) -> bool {
        let over = self.stop.is_cancelled() || self.task.is_finished();
        matches!(key, FeedKey::Bulk(..)) && !over && !self.reached().is_empty()
    }

    pub async fn end(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(error = &error as &dyn Error, "a feed of read models died");
        }
    }

    /// What it has fed, and how far.
    pub fn reached(&self) -> BTreeMap<Share, Offset> {
        self.reached.all()
    }
}
