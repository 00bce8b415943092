//! `orderlog events`.

use super::access;
use events::{
    Position, StreamId,
    log::{BatchReader, Cursor, Record, StoredBatch},
    partitioner::partition_of,
};
use orderlog::config::Config;
use serde_json::{json, value::RawValue};

#[derive(clap::Args)]
pub struct Args {
    /// Id of the stream: `<kind>-<id>`, such as `order-0192d3f4-...`.
    stream: StreamId,
    /// Waits for new events and prints them too.
    #[arg(long)]
    follow: bool,
}

pub async fn run(config: &Config, args: &Args) -> anyhow::Result<()> {
    let log = access::log(config).await?;
    let partition = partition_of(args.stream, log.partitions());
    let mut reader = BatchReader::open(&*log, partition, Cursor::START).await?;
    loop {
        let chunk = reader.next().await?;
        for (position, record) in chunk.batches.iter().flat_map(StoredBatch::positioned) {
            if record.stream == args.stream {
                super::print(&line(position, record))?;
            }
        }
        if chunk.at_end && !args.follow {
            return Ok(());
        }
    }
}

/// A record as the log has it. Personal data stays encrypted.
fn line(position: Position, record: &Record) -> String {
    // Data that is no JSON is printed as text, because it may be what the user is looking for.
    let data = serde_json::from_slice::<&RawValue>(&record.body)
        .map_or_else(|_| json!(String::from_utf8_lossy(&record.body)), |data| json!(data));
    let metadata = record.metadata;
    let event = json!({
        "version": metadata.version,
        "type": record.event_type,
        "occurred_at": record.time,
        "data": data,
        "position": position,
        "event_id": record.event_id,
        "schema": metadata.schema,
        "command_id": metadata.command_id,
        "correlation_id": metadata.correlation_id,
        "causation_id": metadata.causation_id,
        "traceparent": record.traceparent,
    });
    event.to_string()
}
