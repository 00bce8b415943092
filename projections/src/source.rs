//! Reads and decodes the log while the database works: one task for each partition, all into one
//! bounded channel.

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

/// What a reader reports.
pub(crate) enum Read {
    /// Batches, in order.
    Batches(Partition, Decoded),
    /// The log is damaged after the batches that were reported before; the partition stops.
    Damaged(Partition, ReadError),
}

/// Reads a partition from `from` on until the receiver is dropped or the log is damaged. If the log
/// cannot be reached, it retries.
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
            // This fails only if the receiver was dropped.
            let _ = into.send(Read::Damaged(partition, failed)).await;
            return;
        }
        tracing::warn!(
            %partition, error = &failed as &dyn Error,
            "the log cannot be reached, trying again"
        );
        backoff.rest(&*environment).await;
    }
}

/// Sends batches on until the reader fails; `None` when the receiver was dropped.
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

/// The checkpoints that do not belong to this log, with the reason, by partition and last event.
pub(crate) struct Foreign(BTreeMap<(Partition, Last), String>);

impl Foreign {
    /// Why a checkpoint does not belong to this log; `None` if it does.
    pub fn reason(&self, partition: Partition, checkpoint: &Checkpoint) -> Option<&str> {
        self.0.get(&(partition, checkpoint.last?)).map(String::as_str)
    }
}

/// Finds the checkpoints that do not belong to this log. All partitions are checked at the same
/// time, and checkpoints at the same event only once: a check takes a few round trips, which delay
/// the serving versions.
pub(crate) async fn foreign<'a>(
    log: &dyn EventLog,
    checkpoints: impl Iterator<Item = (Partition, &'a Checkpoint)>,
) -> Result<Foreign, ReadError> {
    let mut places: BTreeMap<Partition, BTreeSet<Last>> = BTreeMap::new();
    for (partition, checkpoint) in checkpoints {
        places.entry(partition).or_default().extend(checkpoint.last);
    }
    let checks = places.into_iter().map(async |(partition, lasts)| {
        let mut foreign = Vec::new();
        for last in lasts {
            if !holds(log, partition, last).await? {
                let Last { offset, event_id, .. } = last;
                let reason = format!(
                    "the checkpoint belongs to another log, or the log is damaged: event \
                     {event_id} is not at {partition}:{offset}"
                );
                foreign.push(((partition, last), reason));
            }
        }
        Ok::<_, ReadError>(foreign)
    });
    let foreign = futures::future::try_join_all(checks).await?;
    Ok(Foreign(foreign.into_iter().flatten().collect()))
}

/// Whether the log has this event at this position. If not, the checkpoint belongs to another log,
/// or this log is damaged.
async fn holds(log: &dyn EventLog, partition: Partition, last: Last) -> Result<bool, ReadError> {
    match first_event_is(log, partition, last).await {
        // The log is shorter, begins later, or cannot be decoded there, so it does not hold what
        // was read. Some logs report this when they are opened, others when they are read.
        Err(ReadError::Damaged { .. }) => Ok(false),
        found => found,
    }
}

async fn first_event_is(
    log: &dyn EventLog,
    partition: Partition,
    last: Last,
) -> Result<bool, ReadError> {
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
