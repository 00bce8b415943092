//! Reads the log independently of the program's code: raw records, batches assembled here, bodies
//! as plain JSON.

use super::Violations;
use anyhow::{Context, Result, bail, ensure};
use events::{
    Offset, Partition, StreamId,
    log::{EventLog, RawRecord, embedded::EmbeddedLog, header},
};
use rdkafka::{
    ClientConfig, Message, Offset as From, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::{BorrowedMessage, Headers},
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};
use tokio::time::Instant;
use uuid::Uuid;

/// The program's default topic.
const TOPIC: &str = "orderlog.events";

/// How long reading the whole log may take.
const PATIENCE: Duration = Duration::from_mins(5);

/// An event in the log.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its own id.
    pub id: Uuid,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// The stream.
    pub stream: StreamId,
    /// Its version in the stream.
    pub version: u64,
    /// Its wire name.
    pub name: String,
    /// The command that caused it.
    pub command: Uuid,
    /// Whether a client's command caused it, and not a command of the program itself.
    pub by_client: bool,
    /// Its JSON.
    pub body: Value,
    term: u64,
    batch: Uuid,
    index: u32,
    length: u32,
}

/// Reads all committed records, partition by partition.
///
/// # Errors
/// When the log cannot be read.
pub async fn read(kafka: Option<String>, data_dir: &Path) -> Result<Vec<Vec<Event>>> {
    if let Some(servers) = kafka {
        return tokio::task::spawn_blocking(move || read_topic(&servers)).await?;
    }
    let log = EmbeddedLog::open_read_only(&orderlog::startup::log_dir(data_dir))?;
    let mut partitions = Vec::new();
    for partition in (0..log.partitions()).map(Partition) {
        let mut reader = log.read(partition, Offset::START).await?;
        let mut events = Vec::new();
        loop {
            let chunk = reader.next().await?;
            for raw in chunk.records {
                events.push(Event::of_raw(partition, &raw)?);
            }
            if chunk.at_end {
                break;
            }
        }
        partitions.push(events);
    }
    Ok(partitions)
}

fn read_topic(servers: &str) -> Result<Vec<Vec<Event>>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("group.id", "faults")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("check.crcs", "true")
        .create()?;
    let metadata = consumer.fetch_metadata(Some(TOPIC), Duration::from_secs(30))?;
    let topic = metadata.topics().first().context("the topic does not exist")?;
    let count = topic.partitions().len();
    let mut all = TopicPartitionList::new();
    for partition in topic.partitions() {
        all.add_partition_offset(TOPIC, partition.id(), From::Beginning)?;
    }
    consumer.assign(&all)?;
    let mut partitions = vec![Vec::new(); count];
    let mut ended = BTreeSet::new();
    let deadline = Instant::now() + PATIENCE;
    while ended.len() < count {
        ensure!(
            Instant::now() < deadline,
            "only the partitions {ended:?} of {count} were read in time"
        );
        match consumer.poll(Duration::from_millis(200)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ended.insert(partition);
            }
            Some(Err(error)) => bail!(error),
            Some(Ok(message)) => {
                let event = Event::of_message(&message)
                    .with_context(|| format!("{}:{}", message.partition(), message.offset()))?;
                partitions[usize::try_from(event.partition)?].push(event);
            }
        }
    }
    Ok(partitions)
}

impl Event {
    fn of_message(message: &BorrowedMessage<'_>) -> Result<Self> {
        let headers = message.headers().context("no headers")?;
        let value = |name: &str| {
            let found = headers.iter().find(|header| header.key == name);
            found.and_then(|header| header.value).with_context(|| format!("no {name}"))
        };
        let text = |name: &str| anyhow::Ok(std::str::from_utf8(value(name)?)?);
        let (metadata, stamp) = header::unpack(value("ol")?)?;
        let stream: StreamId = text("ce_subject")?.parse()?;
        ensure!(
            message.key() == Some(stream.to_string().as_bytes()),
            "the record's key is not its stream"
        );
        Ok(Self {
            id: text("ce_id")?.parse()?,
            partition: message.partition(),
            offset: message.offset(),
            stream,
            version: metadata.version,
            name: text("ce_type")?.to_owned(),
            command: metadata.command_id,
            by_client: metadata.fingerprint.0 != [0; 16],
            body: serde_json::from_slice(message.payload().context("no body")?)?,
            term: stamp.term,
            batch: stamp.batch_id,
            index: stamp.index,
            length: stamp.len,
        })
    }

    fn of_raw(partition: Partition, raw: &RawRecord) -> Result<Self> {
        let RawRecord { offset, stamp, record } = raw;
        Ok(Self {
            id: record.event_id,
            partition: i32::try_from(partition.0)?,
            offset: offset.0,
            stream: record.stream,
            version: record.metadata.version,
            name: record.event_type.to_string(),
            command: record.metadata.command_id,
            by_client: record.metadata.fingerprint.0 != [0; 16],
            body: serde_json::from_slice(&record.body)?,
            term: stamp.term,
            batch: stamp.batch_id,
            index: stamp.index,
            length: stamp.len,
        })
    }

    /// An event made up by a test, in its own batch.
    #[cfg(test)]
    pub fn made_up(
        stream: StreamId,
        version: u64,
        name: &str,
        body: Value,
        command: Option<Uuid>,
    ) -> Self {
        Self {
            id: Uuid::now_v7(),
            partition: 0,
            offset: 0,
            stream,
            version,
            name: name.to_owned(),
            command: command.unwrap_or_default(),
            by_client: command.is_some(),
            body,
            term: 1,
            batch: Uuid::now_v7(),
            index: 0,
            length: 1,
        }
    }

    /// The same event in another batch, at this index of this length.
    #[cfg(test)]
    #[must_use]
    pub fn in_batch(self, term: u64, batch: u128, (index, length): (u32, u32)) -> Self {
        Self { term, batch: Uuid::from_u128(batch), index, length, ..self }
    }

    fn is_claim(&self) -> bool {
        self.name == "WriterClaimed"
    }

    fn is_writers_own(&self) -> bool {
        self.stream.kind == events::StreamKind::Writer
    }
}

/// The records that count. Incomplete batches and batches of a former writer do not.
pub struct Counted {
    /// The events that count, without claims and beats.
    pub events: Vec<Event>,
    /// The number of claims, so of openings of partitions.
    pub claims: usize,
    /// The number of records that do not count.
    pub void: usize,
}

/// Applies the rules of the log: batches are whole, terms grow.
pub fn count(partitions: Vec<Vec<Event>>) -> Counted {
    let mut counted = Counted { events: Vec::new(), claims: 0, void: 0 };
    for events in partitions {
        let mut term = 0;
        for batch in events.chunk_by(|one, next| one.batch == next.batch) {
            let first = &batch[0];
            let whole = batch.len() == first.length as usize
                && batch.iter().zip(0..).all(|(event, index)| event.index == index);
            let overtaken = first.term < term || (first.is_claim() && first.term == term);
            if !whole || overtaken {
                counted.void += batch.len();
                continue;
            }
            term = first.term;
            counted.claims += usize::from(first.is_claim());
            counted.events.extend(batch.iter().filter(|event| !event.is_writers_own()).cloned());
        }
    }
    counted
}

/// Checks that the versions of each stream grow by one, that a stream is in one partition, and that
/// no event is there twice.
pub fn check_order(events: &[Event], violations: &mut Violations) {
    let mut last: BTreeMap<StreamId, (u64, i32)> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for event in events {
        let Event { stream, version, partition, offset, id, .. } = event;
        let (before, home) =
            last.insert(*stream, (*version, *partition)).unwrap_or((0, *partition));
        if *version != before + 1 {
            violations.add(format!(
                "{stream} has version {version} after {before} at {partition}:{offset}"
            ));
        }
        if home != *partition {
            violations.add(format!("{stream} is in partitions {home} and {partition}"));
        }
        if !ids.insert(*id) {
            violations.doubled(&format!("event {id} of {stream} is in the log twice"));
        }
    }
}
