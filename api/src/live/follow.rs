//! Follows one partition of the log on behalf of its listeners.

use super::{Frame, Hub, Listened};
use crate::orders::history::EventBody;
use events::{
    Partition, Position,
    log::{BatchReader, Chunk, Cursor, ReadError, Record, StoredBatch},
};
use projections::ReadModel;
use serde_json::value::RawValue;
use std::{error::Error, pin::pin, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// How long a partition without listeners is still followed, at least; at most twice as long.
/// Listeners that were cut off come back soon.
const LINGER: Duration = Duration::from_secs(15);
/// The pause after the log or the database did not answer.
const BACKOFF: Duration = Duration::from_secs(1);

/// Follows a partition until it has no listeners.
pub(super) async fn follow(hub: Arc<Hub>, partition: Partition, begun: CancellationToken) {
    // Dropped on every way out, so that waiting listeners learn of a failure as well.
    let begun = begun.drop_guard();
    let mut ending = Ending { hub: &hub, partition, told: false };
    let Some(mut cursor) = begin(&hub, partition).await else { return };
    drop(begun);
    loop {
        let failed = match BatchReader::open(&*hub.log, partition, cursor).await {
            Ok(reader) => match forward(&hub, reader, partition, &mut cursor).await {
                Ok(()) => {
                    ending.told = true;
                    return;
                }
                Err(error) => error,
            },
            Err(error) => error,
        };
        if is_final(partition, &failed) {
            return;
        }
        if hub.stop.run_until_cancelled(hub.environment.sleep(BACKOFF)).await.is_none() {
            return;
        }
    }
}

/// Whether a retry is useless.
fn is_final(partition: Partition, failed: &ReadError) -> bool {
    let error = failed as &dyn Error;
    if let ReadError::Damaged { .. } = failed {
        tracing::error!(%partition, error, "the log is damaged, its events cannot be streamed");
        return true;
    }
    tracing::warn!(%partition, error, "the log cannot be read for listeners, trying again");
    false
}

/// Ends the listeners of a partition when it is no longer followed, for whatever reason.
struct Ending<'a> {
    hub: &'a Hub,
    partition: Partition,
    /// Whether the partition is marked as not followed. Another task may follow it by now, and its
    /// listeners must not be ended.
    told: bool,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if !self.told {
            *self.hub.listened(self.partition) = Listened::default();
        }
    }
}

/// Where to begin: at the end of the history's read model, which has all events before.
async fn begin(hub: &Hub, partition: Partition) -> Option<Cursor> {
    loop {
        match hub.reads.cursor(ReadModel::History, partition).await {
            Ok(cursor) => return Some(cursor),
            Err(error) => {
                let error = &error as &dyn Error;
                tracing::warn!(%partition, error, "the history's position cannot be read for listeners, trying again");
            }
        }
        hub.stop.run_until_cancelled(hub.environment.sleep(BACKOFF)).await?;
    }
}

/// Passes events on until the partition has no listeners.
async fn forward(
    hub: &Hub,
    mut reader: BatchReader,
    partition: Partition,
    cursor: &mut Cursor,
) -> Result<(), ReadError> {
    let mut deserted = false;
    loop {
        let mut next = pin!(reader.next());
        let chunk = loop {
            tokio::select! {
                chunk = &mut next => break chunk?,
                () = hub.stop.cancelled() => return Ok(()),
                () = hub.environment.sleep(LINGER) => {}
            }
            let mut listened = hub.listened(partition);
            if listened.streams.is_empty() && deserted {
                listened.followed = false;
                return Ok(());
            }
            deserted = listened.streams.is_empty();
        };
        *cursor = chunk.cursor;
        tell(hub, partition, &chunk);
    }
}

fn tell(hub: &Hub, partition: Partition, chunk: &Chunk) {
    let mut listened = hub.listened(partition);
    if listened.streams.is_empty() {
        return;
    }
    for (position, record) in chunk.batches.iter().flat_map(StoredBatch::positioned) {
        let Some(waiting) = listened.streams.get_mut(&record.stream) else { continue };
        match frame(position, record) {
            Ok(frame) => {
                let frame = Arc::new(frame);
                // A listener that does not read is dropped. When it comes back, it gets the missed
                // events from the history.
                waiting.retain(|one| one.events.try_send(Arc::clone(&frame)).is_ok());
            }
            Err(error) => {
                let stream = record.stream;
                tracing::error!(%stream, %error, "an event cannot be encoded for listeners");
                waiting.clear();
            }
        }
    }
}

fn frame(position: Position, record: &Record) -> serde_json::Result<Frame> {
    let data: Box<RawValue> = serde_json::from_slice(&record.body)?;
    Frame::of(&EventBody {
        version: record.metadata.version,
        event_type: record.event_type.clone().into_owned(),
        occurred_at: record.time,
        data,
        position,
    })
}
