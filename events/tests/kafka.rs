//! The log on a real Apache Kafka: the contract suite, and tests specific to Kafka.
//!
//! The tests need a broker at `KAFKA_BOOTSTRAP_SERVERS`. Without one each test prints that it is
//! skipped, or fails if `ORDERLOG_REQUIRE_KAFKA=1`.

#![allow(clippy::unwrap_used)]

use async_trait::async_trait;
use events::{
    Environment, Event, Fingerprint, Metadata, Offset, Partition, StreamId,
    environment::System,
    log::{
        AppendError, Batch, BatchReader, Claim, ConnectError, Cursor, EventLog, ReadError, Record,
        Writer,
        assembler::Void,
        contract::{Harness, PARTITIONS},
        header,
        kafka::{KafkaLog, KafkaSettings},
        opening,
    },
    order,
};
use rdkafka::{
    ClientConfig, Message, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    message::{BorrowedMessage, Header, Headers, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::Sender,
    },
    time::{Duration, Instant},
};
use tokio::sync::oneshot;
use uuid::Uuid;

const P: Partition = Partition(0);
const TIMEOUT: Duration = Duration::from_secs(30);

#[allow(clippy::disallowed_methods, reason = "environment variables say where the broker is")]
fn brokers() -> Option<String> {
    let brokers = std::env::var("KAFKA_BOOTSTRAP_SERVERS").ok().filter(|it| !it.is_empty());
    let required = std::env::var("ORDERLOG_REQUIRE_KAFKA").is_ok_and(|value| value == "1");
    assert!(brokers.is_some() || !required, "KAFKA_BOOTSTRAP_SERVERS is not set");
    if brokers.is_none() {
        eprintln!("skipped: KAFKA_BOOTSTRAP_SERVERS is not set");
    }
    brokers
}

/// A topic for one test.
struct Topic {
    brokers: String,
    name: String,
}

impl Topic {
    fn new() -> Option<Self> {
        Some(Self { brokers: brokers()?, name: format!("test-{}", System::new().uuid()) })
    }

    fn settings(&self) -> KafkaSettings {
        let mut settings = KafkaSettings::new(&self.brokers, Arc::new(System::new()));
        settings.topic.clone_from(&self.name);
        settings.partitions = Some(PARTITIONS);
        settings
    }

    async fn connect(&self) -> KafkaLog {
        KafkaLog::connect(self.settings()).await.expect("the log connects")
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config().create().unwrap()
    }

    /// Creates the topic like another program might: correct except for `changes`.
    async fn make(&self, changes: &[(&str, &str)]) {
        let right =
            [("retention.ms", "-1"), ("retention.bytes", "-1"), ("cleanup.policy", "delete")];
        let config: BTreeMap<&str, &str> = right.iter().chain(changes).copied().collect();
        let new = NewTopic::new(&self.name, 3, TopicReplication::Fixed(1));
        let new = config.into_iter().fold(new, |new, (name, value)| new.set(name, value));
        for result in self.admin().create_topics([&new], &AdminOptions::new()).await.unwrap() {
            result.unwrap();
        }
    }

    async fn delete(&self) {
        let deleted = self.admin().delete_topics(&[&self.name], &AdminOptions::new()).await;
        deleted.unwrap().into_iter().for_each(|result| drop(result.unwrap()));
    }

    /// Deletes the records of partition 0 before `offset`.
    async fn delete_records(&self, offset: Offset) {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(&self.name, 0, rdkafka::Offset::Offset(offset.0)).unwrap();
        let deleted = self.admin().delete_records(&offsets, &AdminOptions::new()).await.unwrap();
        deleted.elements().iter().for_each(|partition| partition.error().unwrap());
    }

    /// A producer of another program, in an open transaction.
    fn transaction(&self, id: &str) -> BaseProducer {
        let producer: BaseProducer =
            self.config().set("transactional.id", id).set("linger.ms", "0").create().unwrap();
        producer.init_transactions(TIMEOUT).unwrap();
        producer.begin_transaction().unwrap();
        producer
    }

    fn produce(&self, producer: &BaseProducer, partition: Partition, batch: &Batch, keep: usize) {
        for (record, stamp) in batch.records.iter().zip(batch.stamps()).take(keep) {
            let headers = headers(record, &header::pack(&record.metadata, &stamp));
            let key = record.stream.to_string();
            let sent = BaseRecord::to(&self.name)
                .partition(i32::try_from(partition.0).unwrap())
                .key(&key)
                .payload(record.body.as_ref())
                .headers(headers);
            assert!(producer.send(sent).is_ok());
        }
        producer.flush(TIMEOUT).unwrap();
    }
}

/// The headers as documented.
fn headers(record: &Record, packed: &[u8]) -> OwnedHeaders {
    let time = record.time.to_rfc3339();
    let (id, subject) = (record.event_id.to_string(), record.stream.to_string());
    let texts = [
        ("ce_specversion", "1.0"),
        ("ce_id", &id),
        ("ce_type", &record.event_type),
        ("ce_source", "/orderlog"),
        ("ce_subject", &subject),
        ("ce_time", &time),
        ("content-type", "application/json"),
    ];
    texts
        .into_iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value) })
        })
        .insert(Header { key: "ol", value: Some(packed) })
}

#[async_trait]
impl Harness for Topic {
    async fn log(&self) -> Arc<dyn EventLog> {
        Arc::new(self.connect().await)
    }

    async fn tear(&self, partition: Partition, batch: &Batch, keep: usize) {
        let producer = self.transaction(&format!("{}-writer-{partition}-0", self.name));
        self.produce(&producer, partition, batch, keep);
        producer.commit_transaction(TIMEOUT).unwrap();
    }

    fn interleavings(&self) -> usize {
        // Each interleaving takes about twenty producers.
        6
    }

    async fn finish(&self) {
        self.delete().await;
    }
}

mod kafka_contract {
    use super::Topic;

    events::log_contract!(Topic::new());
}

fn record(traceparent: Option<&str>) -> Record {
    let environment = System::new();
    let id = environment.uuid();
    let metadata = Metadata {
        version: 1,
        schema: 1,
        command_id: id,
        fingerprint: Fingerprint(*id.as_bytes()),
        correlation_id: id,
        causation_id: id,
    };
    let event = Event::from(order::Event::from(order::Cancelled {
        plain_reason: Some("late".into()),
        ..order::Cancelled::default()
    }));
    let stream = StreamId::order(id);
    let record = event.to_record(environment.uuid(), stream, environment.now(), metadata);
    Record { traceparent: traceparent.map(Into::into), ..record }
}

fn batch(writer: &Writer, len: usize) -> Batch {
    writer.batch(System::new().uuid(), (0..len).map(|_| record(None)).collect())
}

async fn open(log: &dyn EventLog) -> Writer {
    open_partition(log, P).await
}

async fn open_partition(log: &dyn EventLog, partition: Partition) -> Writer {
    let environment = System::new();
    let node = environment.uuid();
    let opened = opening::open(log, &environment, partition, node, Cursor::START, |_| {});
    opened.await.expect("the partition opens").0
}

/// Reads the records from `from` to the end, which must be after `until`.
async fn read_to(log: &dyn EventLog, from: Offset, until: Offset) -> Vec<(Offset, Uuid)> {
    let mut reader = log.read(P, from).await.unwrap();
    let mut read = Vec::new();
    loop {
        let chunk = reader.next().await.unwrap();
        read.extend(chunk.records.iter().map(|raw| (raw.offset, raw.record.event_id)));
        if chunk.at_end && chunk.next.unwrap() > until {
            return read;
        }
    }
}

async fn refusal(settings: KafkaSettings) -> String {
    match KafkaLog::connect(settings).await {
        Err(ConnectError::Refused { reason, .. } | ConnectError::Damaged { reason, .. }) => reason,
        Err(other) => panic!("not refused but {other:?}"),
        Ok(_) => panic!("not refused"),
    }
}

#[tokio::test]
async fn kafka_topic_is_created_to_keep_history_for_ever() {
    let Some(topic) = Topic::new() else { return };
    let settings = KafkaSettings { partitions: None, ..topic.settings() };
    let log = KafkaLog::connect(settings.clone()).await.unwrap();
    assert_eq!(log.partitions(), KafkaSettings::DEFAULT_PARTITIONS);
    let admin = topic.admin();
    let described = admin
        .describe_configs([&ResourceSpecifier::Topic(&topic.name)], &AdminOptions::new())
        .await
        .unwrap();
    let config = described[0].as_ref().unwrap();
    for (name, value) in [
        ("cleanup.policy", "delete"),
        ("retention.ms", "-1"),
        ("retention.bytes", "-1"),
        ("unclean.leader.election.enable", "false"),
    ] {
        assert_eq!(config.get(name).unwrap().value.as_deref(), Some(value), "{name}");
    }
    let again = KafkaLog::connect(settings).await.unwrap();
    assert_eq!(again.partitions(), KafkaSettings::DEFAULT_PARTITIONS);
    topic.delete().await;
}

#[tokio::test]
async fn kafka_topic_created_by_two_nodes_at_once_is_one_topic() {
    let Some(topic) = Topic::new() else { return };
    let (one, two) = futures::future::join(topic.connect(), topic.connect()).await;
    assert_eq!((one.partitions(), two.partitions()), (PARTITIONS, PARTITIONS));
    topic.delete().await;
}

#[tokio::test]
async fn kafka_topic_that_loses_history_is_refused() {
    for (name, value) in [
        ("retention.ms", "604800000"),
        ("retention.bytes", "1073741824"),
        ("cleanup.policy", "compact"),
        ("cleanup.policy", "compact,delete"),
        ("max.message.bytes", "100000"),
    ] {
        let Some(topic) = Topic::new() else { return };
        topic.make(&[(name, value)]).await;
        let reason = refusal(topic.settings()).await;
        assert!(reason.contains(name), "{name}={value}: {reason}");
        topic.delete().await;
    }
}

#[tokio::test]
async fn kafka_topic_of_another_partition_count_is_refused() {
    let Some(topic) = Topic::new() else { return };
    topic.make(&[]).await;
    let reason =
        refusal(KafkaSettings { partitions: Some(PARTITIONS + 1), ..topic.settings() }).await;
    assert!(reason.contains("3 partitions"), "{reason}");
    let any = KafkaSettings { partitions: None, ..topic.settings() };
    assert_eq!(KafkaLog::connect(any).await.unwrap().partitions(), 3);
    topic.delete().await;
}

#[tokio::test]
async fn kafka_topic_whose_beginning_is_missing_is_refused_and_not_read() {
    let Some(topic) = Topic::new() else { return };
    let log = topic.connect().await;
    let mut writer = open(&log).await;
    let offsets = writer.append(&batch(&writer, 3)).await.unwrap();
    let mut early = log.read(P, Offset::START).await.unwrap();
    topic.delete_records(offsets[1]).await;

    let reason = refusal(topic.settings()).await;
    assert!(reason.contains("has lost"), "{reason}");
    let late = log.read(P, Offset::START).await;
    assert!(matches!(late, Err(ReadError::Damaged { .. })));
    // A reader that starts at the remaining records can still read them.
    let (rest, _) =
        futures::future::join(read_to(&log, offsets[1], offsets[2]), early.next()).await;
    assert_eq!(rest.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), offsets[1..]);
    topic.delete().await;
}

#[tokio::test]
async fn kafka_that_cannot_be_reached_is_unavailable() {
    if brokers().is_none() {
        return;
    }
    // Nothing listens on the port of the discard service.
    let settings = KafkaSettings::new("127.0.0.1:9", Arc::new(System::new()));
    let error = KafkaLog::connect(settings).await.err().unwrap();
    assert!(matches!(error, ConnectError::Unavailable { .. }), "{error:?}");
}

fn header_of<'a>(message: &'a BorrowedMessage<'_>, key: &str) -> Option<&'a [u8]> {
    message.headers()?.iter().find(|header| header.key == key)?.value
}

#[tokio::test]
async fn kafka_records_can_be_read_with_any_client() {
    let Some(topic) = Topic::new() else { return };
    let log = topic.connect().await;
    let mut writer = open(&log).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let records = vec![record(Some(trace)), record(None)];
    let batch = writer.batch(System::new().uuid(), records);
    let offsets = writer.append(&batch).await.unwrap();

    let consumer: BaseConsumer = topic
        .config()
        .set("group.id", "anybody")
        .set("isolation.level", "read_committed")
        .create()
        .unwrap();
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(&topic.name, 0, rdkafka::Offset::Offset(offsets[0].0)).unwrap();
    consumer.assign(&from).unwrap();
    for (record, offset) in batch.records.iter().zip(offsets) {
        let message = consumer.poll(TIMEOUT).expect("a record in time").unwrap();
        assert_eq!(message.offset(), offset.0);
        assert_eq!(message.key(), Some(record.stream.to_string().as_bytes()));
        assert_eq!(message.payload(), Some(record.body.as_ref()));
        assert_eq!(message.timestamp().to_millis(), Some(record.time.timestamp_millis()));
        let time = record.time.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
        let (id, subject) = (record.event_id.to_string(), record.stream.to_string());
        for (key, value) in [
            ("ce_specversion", Some("1.0")),
            ("ce_id", Some(&*id)),
            ("ce_type", Some("OrderCancelled")),
            ("ce_source", Some("/orderlog")),
            ("ce_subject", Some(&*subject)),
            ("ce_time", Some(&*time)),
            ("content-type", Some("application/json")),
            ("traceparent", record.traceparent.as_deref()),
        ] {
            assert_eq!(header_of(&message, key), value.map(str::as_bytes), "{key}");
        }
        let (metadata, stamp) = header::unpack(header_of(&message, "ol").unwrap()).unwrap();
        assert_eq!((metadata, stamp.term), (record.metadata, writer.term()));
        serde_json::from_slice::<serde_json::Value>(message.payload().unwrap()).unwrap();
    }
    topic.delete().await;
}

#[tokio::test]
async fn kafka_transaction_that_is_open_or_aborted_is_not_visible() {
    let Some(topic) = Topic::new() else { return };
    let log = topic.connect().await;
    let mut writer = open(&log).await;
    let before = writer.append(&batch(&writer, 2)).await.unwrap();
    let first = read_to(&log, Offset::START, before[1]).await;
    let end = log.end(P).await.unwrap();

    let foreign = topic.transaction(&format!("{}-foreign", topic.name));
    topic.produce(&foreign, P, &batch(&writer, 3), 3);
    assert_eq!(log.end(P).await.unwrap(), end, "the end is before an open transaction");
    // A batch committed after the open transaction is hidden until that transaction ends.
    let after = writer.append(&batch(&writer, 1)).await.unwrap();
    assert!(after[0] > end);
    assert_eq!(log.end(P).await.unwrap(), end);
    let mut reader = log.read(P, end).await.unwrap();
    let chunk = reader.next().await.unwrap();
    assert_eq!((chunk.records, chunk.next, chunk.at_end), (vec![], Some(end), true));

    // The next producer with the same id ends it.
    let successor = topic.transaction(&format!("{}-foreign", topic.name));
    let read = read_to(&log, Offset::START, after[0]).await;
    assert_eq!(read[..first.len()], first);
    assert_eq!(read[first.len()..].iter().map(|(at, _)| *at).collect::<Vec<_>>(), after);
    drop((foreign, successor));
    topic.delete().await;
}

#[tokio::test]
async fn kafka_record_that_cannot_be_decoded_stops_the_reader_before_it() {
    let Some(topic) = Topic::new() else { return };
    let log = topic.connect().await;
    let mut writer = open(&log).await;
    let good = writer.append(&batch(&writer, 2)).await.unwrap();
    let foreign = topic.transaction(&format!("{}-foreign", topic.name));
    let damaged = BaseRecord::to(&topic.name).partition(0).key("me").payload("hi");
    let header = Header { key: "ol", value: Some("hi") };
    assert!(foreign.send(damaged.headers(OwnedHeaders::new().insert(header))).is_ok());
    foreign.commit_transaction(TIMEOUT).unwrap();
    let last = writer.append(&batch(&writer, 1)).await.unwrap();

    let mut reader = log.read(P, Offset::START).await.unwrap();
    let (mut read, mut next) = (Vec::new(), Offset::START);
    let offset = loop {
        match reader.next().await {
            Ok(chunk) => {
                read.extend(chunk.records.iter().map(|raw| raw.offset));
                next = chunk.next.unwrap();
            }
            Err(ReadError::Damaged { offset, partition: P, .. }) => break offset,
            Err(other) => panic!("{other:?}"),
        }
    };
    assert_eq!(read[1..], good, "the claim and the batch before it");
    assert!(good[1] < offset && offset < last[0]);
    assert!(next <= offset, "a reader that continues from `next` must not skip the record");
    assert!(
        matches!(reader.next().await, Err(ReadError::Unavailable(_))),
        "the reader must not continue"
    );
    topic.delete().await;
}

/// More of them than one read takes.
#[tokio::test]
async fn kafka_records_of_another_program_do_not_count_and_close_nothing() {
    let Some(topic) = Topic::new() else { return };
    let log = topic.connect().await;
    let mut writer = open(&log).await;
    let first = writer.append(&batch(&writer, 2)).await.unwrap();
    let stranger: BaseProducer = topic.config().create().unwrap();
    for number in 0..2_500 {
        let record = BaseRecord::to(&topic.name).partition(0).key("me").payload("hi");
        let record = match number % 2 {
            0 => record,
            _ => record
                .headers(OwnedHeaders::new().insert(Header { key: "trace", value: Some("hi") })),
        };
        stranger.send(record).unwrap();
    }
    stranger.flush(TIMEOUT).unwrap();
    let second = writer.append(&batch(&writer, 3)).await.unwrap();
    // The next writer opens over them.
    drop(open(&log).await);

    let mut reader = BatchReader::open(&log, P, Cursor::START).await.unwrap();
    let (mut read, mut foreign) = (Vec::new(), 0);
    loop {
        let chunk = reader.next().await.unwrap();
        let records = chunk.batches.into_iter().flat_map(|batch| batch.records);
        read.extend(records.map(|stored| stored.offset));
        foreign +=
            reader.take_void().iter().filter(|it| matches!(it, Void::Foreign { .. })).count();
        if chunk.at_end {
            break;
        }
    }
    let counted: Vec<Offset> = first.into_iter().chain(second).collect();
    assert_eq!(read[1..=counted.len()], counted, "the claim, then both batches");
    assert_eq!(foreign, 2_500);
    topic.delete().await;
}

#[tokio::test]
async fn kafka_readers_of_one_partition_do_not_disturb_each_other() {
    let Some(topic) = Topic::new() else { return };
    let log = topic.connect().await;
    let mut writer = open(&log).await;
    let mut last = Offset::START;
    for len in [1, 5, 2] {
        last = *writer.append(&batch(&writer, len)).await.unwrap().last().unwrap();
    }
    let whole = read_to(&log, Offset::START, last).await;
    assert_eq!(whole.len(), 9, "the claim and all records");
    for _ in 0..5 {
        let from = whole.iter().map(|&(from, _)| read_to(&log, from, last));
        let read = futures::future::join_all(from).await;
        for (index, read) in read.into_iter().enumerate() {
            assert_eq!(read, whole[index..]);
        }
    }
    topic.delete().await;
}

/// librdkafka waits 100 ms in a commit with records in flight, and 20 ms if a transactional id
/// starts its next transaction at once. A writer that uses both lanes in turn avoids both waits.
#[tokio::test]
async fn kafka_commit_avoids_both_fixed_waits() {
    let Some(topic) = Topic::new() else { return };
    let log = topic.connect().await;
    let mut writer = open(&log).await;
    let mut took = Vec::new();
    for _ in 0..100 {
        let batch = batch(&writer, 1);
        let began = now();
        writer.append(&batch).await.unwrap();
        took.push(began.elapsed());
    }
    took.sort();
    println!("two lanes in turn: p50 {:?}, p99 {:?}, max {:?}", took[50], took[98], took[99]);
    assert!(took[10] < Duration::from_millis(80), "{took:?}");
    topic.delete().await;
}

/// A command that controls the broker, if the caller has configured one.
#[allow(clippy::disallowed_methods, reason = "environment variables say where the broker is")]
fn control(command: &'static str) -> Option<std::process::Command> {
    let program = std::env::var_os("ORDERLOG_KAFKA_CONTROL");
    let Some((program, dir)) = program.zip(std::env::var_os("ORDERLOG_KAFKA_DIR")) else {
        eprintln!("skipped: ORDERLOG_KAFKA_CONTROL and ORDERLOG_KAFKA_DIR are not set");
        return None;
    };
    let mut control = std::process::Command::new(program);
    control.arg(command).arg(dir);
    Some(control)
}

async fn run(mut control: std::process::Command) {
    let done = tokio::task::spawn_blocking(move || control.status()).await.unwrap();
    assert!(done.unwrap().success());
}

/// Opens the partition as soon as possible. Returns the writer and the ids of all batches in it.
async fn reopen(log: &dyn EventLog) -> (Writer, Vec<Uuid>) {
    let environment = System::new();
    for _ in 0..120 {
        let mut history = Vec::new();
        let node = environment.uuid();
        let opened = opening::open(log, &environment, P, node, Cursor::START, |batch| {
            history.extend(Claim::of(&batch).is_none().then_some(batch.id));
        });
        match opened.await {
            Ok((writer, _)) => return (writer, history),
            Err(_) => environment.sleep(Duration::from_millis(250)).await,
        }
    }
    panic!("the partition could not be reopened within 30 s");
}

/// Appends until an append fails or until `over` is set, because an append may survive a short
/// outage. Returns the batch that failed.
async fn append_until_failure(
    mut writer: Writer,
    acknowledged: Sender<Uuid>,
    over: &AtomicBool,
) -> Option<(Uuid, AppendError)> {
    while !over.load(Ordering::SeqCst) {
        let batch = batch(&writer, 3);
        match writer.append(&batch).await {
            Ok(_) => acknowledged.send(batch.id).unwrap(),
            Err(error) => return Some((batch.id, error)),
        }
    }
    None
}

/// Follows the partition until it has read `last`, with a new reader after each failure.
async fn follow(log: Arc<KafkaLog>, mut last: oneshot::Receiver<Uuid>) -> Vec<Uuid> {
    let (mut cursor, mut read, mut until) = (Cursor::START, Vec::new(), None);
    loop {
        let Ok(mut reader) = BatchReader::open(&*log, P, cursor).await else { continue };
        while let Ok(chunk) = reader.next().await {
            cursor = chunk.cursor;
            let batches = chunk.batches.iter().filter(|batch| Claim::of(batch).is_none());
            read.extend(batches.map(|batch| batch.id));
            until = until.or_else(|| last.try_recv().ok());
            if until.is_some() && read.last() == until.as_ref() {
                return read;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_killed_under_a_writer_and_a_reader_loses_nothing() {
    let (Some(topic), Some(_)) = (Topic::new(), control("kill")) else { return };
    let log = Arc::new(topic.connect().await);
    let (say_last, last) = oneshot::channel();
    let (acknowledged, all) = std::sync::mpsc::channel();
    let mut failed = Vec::new();
    let following = futures::future::join(follow(Arc::clone(&log), last), async {
        for _ in 0..2 {
            let (writer, _) = reopen(&*log).await;
            let over = AtomicBool::new(false);
            let appending = append_until_failure(writer, acknowledged.clone(), &over);
            let killing = async {
                System::new().sleep(Duration::from_millis(700)).await;
                run(control("kill").unwrap()).await;
                run(control("restart").unwrap()).await;
                over.store(true, Ordering::SeqCst);
            };
            let (failure, ()) = futures::future::join(appending, killing).await;
            let failure =
                failure.map(|(id, error)| (id, matches!(error, AppendError::NotApplied(_))));
            failed.extend(failure);
        }
        let (mut writer, _) = reopen(&*log).await;
        let end = batch(&writer, 1);
        writer.append(&end).await.unwrap();
        acknowledged.send(end.id).unwrap();
        say_last.send(end.id).unwrap();
    });
    let (read, ()) = following.await;
    drop(acknowledged);
    let acknowledged: Vec<Uuid> = all.into_iter().collect();
    let is_unknown = |id: &Uuid| failed.contains(&(*id, false));
    let landed: Vec<Uuid> = read.iter().copied().filter(|id| !is_unknown(id)).collect();
    assert_eq!(
        landed, acknowledged,
        "each acknowledged batch must be in the log once, in order, and no refused one"
    );
    println!("{} batches, {} appends failed", read.len(), failed.len());
    assert_eq!(reopen(&*log).await.1, read, "an opener reads the same history as the reader");
    topic.delete().await;
}

#[allow(clippy::disallowed_methods, reason = "the test measures durations")]
fn now() -> Instant {
    Instant::now()
}
