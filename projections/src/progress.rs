//! How far the serving read models are, for callers that wait for an event to be applied.
//!
//! Where a projector of this process feeds a partition, it wakes the waiting callers and no query
//! is needed. For other partitions the checkpoints are read from the database, and again every
//! [`POLL`] while a caller waits.

use crate::{Behind, ReadModel, database};
use events::{Offset, Partition};
use sqlx::PgPool;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{sync::watch, time};

/// Pause between two reads of the checkpoints that another process moves.
const POLL: Duration = Duration::from_millis(20);

/// How far each read model is in each partition. Clones share the value.
#[derive(Clone, Debug)]
pub struct Progress {
    partitions: usize,
    fed: Arc<[watch::Sender<BTreeMap<Partition, Seen>>]>,
}

/// How far a read model is in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Everything before this offset is applied.
    pub next: Offset,
    /// The last event applied.
    pub last: Option<Offset>,
    /// Whether the partition has stopped and will not go on by itself.
    pub stopped: bool,
    /// Whether there may be parked streams.
    pub parked: bool,
}

/// What a caller waits for in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The event at this offset is applied.
    Event(Offset),
    /// Everything before this offset is applied.
    Before(Offset),
}

impl Target {
    fn met(self, seen: &Seen) -> bool {
        match self {
            Self::Event(offset) => seen.next > offset,
            Self::Before(end) => seen.next >= end,
        }
    }
}

impl Progress {
    /// For a log with this number of partitions. No partition is fed by this process yet.
    pub fn new(partitions: u32) -> Self {
        let fed = ReadModel::ALL.iter().map(|_| watch::Sender::default()).collect();
        Self { partitions: partitions as usize, fed }
    }

    fn of(&self, model: ReadModel) -> &watch::Sender<BTreeMap<Partition, Seen>> {
        &self.fed[model.index()]
    }

    /// Notes how far the serving version is that this process feeds: after a commit, or when a feed
    /// starts. The latter may be further back than before, if the database lost its last
    /// transactions in a crash.
    pub(crate) fn set(&self, model: ReadModel, partition: Partition, seen: Seen) {
        self.of(model).send_modify(|fed| {
            fed.insert(partition, seen);
        });
    }

    /// Notes that there are only gaps before `next`. This never moves backwards: the caller may not
    /// know yet that another version serves now, which has read further.
    pub(crate) fn push(&self, model: ReadModel, partition: Partition, next: Offset) {
        self.of(model).send_if_modified(|fed| match fed.get_mut(&partition) {
            Some(seen) if seen.next < next => {
                seen.next = next;
                true
            }
            _ => false,
        });
    }

    /// Notes that this process no longer feeds the serving version in this partition, so that
    /// another process may.
    pub(crate) fn forget(&self, model: ReadModel, partition: Partition) {
        self.of(model).send_if_modified(|fed| fed.remove(&partition).is_some());
    }

    /// How far `model` is, by partition.
    pub(crate) async fn seen(
        &self,
        pool: &PgPool,
        model: ReadModel,
    ) -> Result<BTreeMap<Partition, Seen>, sqlx::Error> {
        let fed = self.of(model).borrow().clone();
        if fed.len() == self.partitions {
            return Ok(fed);
        }
        let mut seen = stored(pool, model).await?;
        seen.extend(fed);
        Ok(seen)
    }

    /// Waits until all targets are met, for at most `within`.
    pub(crate) async fn wait(
        &self,
        pool: &PgPool,
        model: ReadModel,
        mut targets: Vec<(Partition, Target)>,
        within: Duration,
    ) -> Result<(), Behind> {
        let deadline = time::Instant::now() + within;
        let mut fed = self.of(model).subscribe();
        loop {
            let (mut here, elsewhere) = {
                let fed = fed.borrow_and_update();
                let elsewhere = targets.iter().any(|(at, _)| !fed.contains_key(at));
                (unmet(model, &targets, &fed)?, elsewhere)
            };
            if elsewhere {
                here = unmet(model, &here, &stored(pool, model).await?)?;
            }
            targets = here;
            if targets.is_empty() {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(time::Instant::now());
            tokio::select! {
                _ = fed.changed() => {}
                () = rest(if elsewhere { left.min(POLL) } else { left }) => {}
            }
            if time::Instant::now() >= deadline {
                return Err(Behind::Late(model));
            }
        }
    }
}

/// Only waiting depends on this clock. No row does, because the read side does not run under a
/// simulated clock.
#[expect(clippy::disallowed_methods, reason = "the one timer of those who wait for read models")]
pub(crate) async fn rest(duration: Duration) {
    time::sleep(duration).await;
}

/// The targets that `seen` does not meet.
fn unmet(
    model: ReadModel,
    targets: &[(Partition, Target)],
    seen: &BTreeMap<Partition, Seen>,
) -> Result<Vec<(Partition, Target)>, Behind> {
    let mut unmet = Vec::new();
    for &(partition, target) in targets {
        match seen.get(&partition) {
            Some(seen) if target.met(seen) => {}
            Some(Seen { stopped: true, .. }) => return Err(Behind::Stopped { model, partition }),
            _ => unmet.push((partition, target)),
        }
    }
    Ok(unmet)
}

/// The checkpoints of the serving version.
async fn stored(pool: &PgPool, model: ReadModel) -> Result<BTreeMap<Partition, Seen>, sqlx::Error> {
    type SeenRow = (i32, i64, Option<i64>, bool, bool);
    let pool = pool.clone();
    let rows: Vec<SeenRow> = database::detached(async move {
        let query = "select partition, next_offset, last_offset, stopped is not null, parked > 0 \
                     from read.checkpoint where projection = $1";
        sqlx::query_as(query).bind(model.as_str()).fetch_all(&pool).await
    })
    .await?;
    let seen = |(partition, next, last, stopped, parked): SeenRow| {
        let seen = Seen { next: Offset(next), last: last.map(Offset), stopped, parked };
        (Partition(partition.unsigned_abs()), seen)
    };
    Ok(rows.into_iter().map(seen).collect())
}
