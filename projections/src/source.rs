//! The log, read and decoded beside the database's work: a task for each partition, all into one bounded channel.

use crate::{
    backoff::Backoff,
    checkpoint::{Checkpoint, Last},
    facts::Decoded,
};
use events::{
    Environment, Partition,
    log::{BatchReader, Cursor, EventLog, ReadError},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    sync::Arc,
};
use tokio::sync::mpsc::Sender;

/// What a reading task has to tell.
pub(crate) enum Read {
    /// Batches, in order.
    Batches(Partition, Decoded),
    /// The log does not hold what it must behind what was told before: the partition stops.
    Damaged(Partition, ReadError),
}

/// Reads a partition from `from` on until nobody listens any more, or until the log is damaged.
/// A log out of reach is tried again.
pub(crate) async fn read(
    log: Arc<dyn EventLog>,
    environment: Arc<dyn Environment>,
    partition: Partition,
    from: Cursor,
    into: Sender<Read>,
) {
    let mut cursor = from;
    let mut backoff = Backoff::default();
    loop {
        let failed = match BatchReader::open(&*log, partition, cursor).await {
            Ok(reader) => {
                match forward(reader, partition, &mut cursor, &mut backoff, &into).await {
                    Some(error) => error,
                    None => return,
                }
            }
            Err(error) => error,
        };
        if let ReadError::Damaged { .. } = failed {
            // Nobody listens any more if this fails.
            let _ = into.send(Read::Damaged(partition, failed)).await;
            return;
        }
        tracing::warn!(%partition, error = &failed as &dyn Error, "the log is out of reach");
        backoff.rest(&*environment).await;
    }
}

/// Hands batches on until the reader fails; `None` when there is nothing more to do.
async fn forward(
    mut reader: BatchReader,
    partition: Partition,
    cursor: &mut Cursor,
    backoff: &mut Backoff,
    into: &Sender<Read>,
) -> Option<ReadError> {
    loop {
        let chunk = tokio::select! {
            chunk = reader.next() => chunk,
            () = into.closed() => return None,
        };
        let decoded = match chunk {
            Ok(chunk) => Decoded::of(chunk),
            Err(error) => return Some(error),
        };
        backoff.reset();
        *cursor = decoded.cursor;
        into.send(Read::Batches(partition, decoded)).await.ok()?;
    }
}

/// Checkpoints that are not of this log, and why: by partition and the last event that was read before.
pub(crate) struct Foreign(BTreeMap<(Partition, Last), String>);

impl Foreign {
    /// Why this one is not; `None` if it is.
    pub fn reason(&self, partition: Partition, checkpoint: &Checkpoint) -> Option<&str> {
        self.0.get(&(partition, checkpoint.last?)).map(String::as_str)
    }
}

/// Looks for checkpoints that are not of this log. All partitions at once, and once for checkpoints at the same place: each
/// look is a few round trips, for which what serves may have to wait.
pub(crate) async fn foreign<'a>(
    log: &dyn EventLog,
    checkpoints: impl Iterator<Item = (Partition, &'a Checkpoint)>,
) -> Result<Foreign, ReadError> {
    let mut places: BTreeMap<Partition, BTreeSet<Last>> = BTreeMap::new();
    for (partition, checkpoint) in checkpoints {
        places.entry(partition).or_default().extend(checkpoint.last);
    }
    let looks = places.into_iter().map(async |(partition, lasts)| {
        let mut foreign = Vec::new();
        for last in lasts {
            if !holds(log, partition, last).await? {
                let Last { offset, event_id, .. } = last;
                let reason = format!(
                    "another log behind this checkpoint, or a damaged one: event {event_id} is not \
                     at {partition}:{offset}"
                );
                foreign.push(((partition, last), reason));
            }
        }
        Ok::<_, ReadError>(foreign)
    });
    let foreign = futures::future::try_join_all(looks).await?;
    Ok(Foreign(foreign.into_iter().flatten().collect()))
}

/// Whether the log has this event at this place: otherwise the checkpoint comes from another log, or this one is damaged.
async fn holds(log: &dyn EventLog, partition: Partition, last: Last) -> Result<bool, ReadError> {
    match look(log, partition, last).await {
        // It is shorter, begins later, or does not read there: whatever it is, it is not what was read. Some logs tell
        // when they are opened, and some when they are read.
        Err(ReadError::Damaged { .. }) => Ok(false),
        looked => looked,
    }
}

async fn look(log: &dyn EventLog, partition: Partition, last: Last) -> Result<bool, ReadError> {
    let mut reader = log.read(partition, last.offset).await?;
    loop {
        let chunk = reader.next().await?;
        if let Some(first) = chunk.records.first() {
            return Ok(first.offset == last.offset && first.record.event_id == last.event_id);
        }
        if chunk.at_end {
            return Ok(false);
        }
    }
}
