//! Follows one partition of the log for those who listen.

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

/// A partition that nobody listens to any more is followed for so long, at most twice that:
/// listeners come back.
const LINGER: Duration = Duration::from_secs(15);
/// The rest after the log or the database did not answer.
const BACKOFF: Duration = Duration::from_secs(1);

/// Follows a partition until nobody listens to it.
pub(super) async fn follow(hub: Arc<Hub>, partition: Partition, begun: CancellationToken) {
    // Whoever waits for it learns of the end as well.
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

/// Whether it is of no use to try again.
fn is_final(partition: Partition, failed: &ReadError) -> bool {
    let error = failed as &dyn Error;
    if let ReadError::Damaged { .. } = failed {
        tracing::error!(%partition, error, "the log cannot be listened to");
        return true;
    }
    tracing::warn!(%partition, error, "the log is out of reach of listeners");
    false
}

/// Ends those who listen to a partition when it is not followed any more, whatever the reason.
struct Ending<'a> {
    hub: &'a Hub,
    partition: Partition,
    /// Somebody else may follow it already.
    told: bool,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if !self.told {
            *self.hub.listened(self.partition) = Listened::default();
        }
    }
}

/// Where to begin: where the read model of the history ends, which has everything before.
async fn begin(hub: &Hub, partition: Partition) -> Option<Cursor> {
    loop {
        match hub.reads.cursor(ReadModel::History, partition).await {
            Ok(cursor) => return Some(cursor),
            Err(error) => {
                let error = &error as &dyn Error;
                tracing::warn!(%partition, error, "a partition cannot be listened to yet");
            }
        }
        hub.stop.run_until_cancelled(hub.environment.sleep(BACKOFF)).await?;
    }
}

/// Hands events on until nobody listens any more.
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
                // Who does not read is dropped, and finds what was missed in the history.
                waiting.retain(|one| one.events.try_send(Arc::clone(&frame)).is_ok());
            }
            Err(error) => {
                let stream = record.stream;
                tracing::error!(%stream, %error, "an event cannot be shown to those who listen");
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
