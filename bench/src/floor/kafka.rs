//! Raw transactions of `rdkafka`: one producer, one partition, one batch after another, like a
//! writer with a single lane. The library makes each transaction of a transactional id wait for the
//! markers of the previous one.

use super::Rows;
use crate::{
    measure::{Measured, latencies, record},
    observed::Appended,
};
use anyhow::{Context, Result, bail};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use std::{
    thread,
    time::{Duration, Instant},
};

/// Size of the `CloudEvents` headers and the packed header in the log on Kafka, in bytes.
const ENVELOPE: usize = 330;

const TIMEOUT: Duration = Duration::from_secs(15);

/// Time between two checks for outstanding deliveries.
const LOOK: Duration = Duration::from_micros(100);

/// Commits batches to a new topic for `duration`, and deletes the topic. Operations are
/// transactions.
///
/// # Errors
/// When Kafka fails.
pub async fn run(servers: &str, topic: &str, rows: Rows, duration: Duration) -> Result<Measured> {
    let admin = admin(servers)?;
    let new = NewTopic::new(topic, 1, TopicReplication::Fixed(1));
    for created in admin.create_topics([&new], &AdminOptions::new()).await? {
        created
            .map_err(|(topic, code)| anyhow::anyhow!("cannot create the topic {topic}: {code}"))?;
    }
    let (servers, name) = (servers.to_owned(), topic.to_owned());
    let measured =
        tokio::task::spawn_blocking(move || commit(&servers, &name, rows, duration)).await?;
    delete_with(&admin, topic).await?;
    measured
}

/// Deletes a topic.
///
/// # Errors
/// When the topic exists and cannot be deleted.
pub async fn delete_topic(servers: &str, topic: &str) -> Result<()> {
    delete_with(&admin(servers)?, topic).await
}

fn admin(servers: &str) -> Result<AdminClient<DefaultClientContext>> {
    ClientConfig::new()
        .set("bootstrap.servers", servers)
        .create()
        .context("cannot create a Kafka client")
}

async fn delete_with(admin: &AdminClient<DefaultClientContext>, topic: &str) -> Result<()> {
    for deleted in admin.delete_topics(&[topic], &AdminOptions::new()).await? {
        match deleted {
            Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
            Err((topic, code)) => bail!("cannot delete the topic {topic}: {code}"),
        }
    }
    Ok(())
}

fn commit(servers: &str, topic: &str, rows: Rows, duration: Duration) -> Result<Measured> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("transactional.id", format!("{topic}-floor"))
        .set("acks", "all")
        .set("compression.type", "lz4")
        .set("linger.ms", "0")
        .set("batch.size", "1000000")
        .create()?;
    producer.init_transactions(TIMEOUT)?;
    let (body, envelope) = (vec![b'x'; rows.body_bytes], vec![b'x'; ENVELOPE]);
    let headers =
        || OwnedHeaders::new_with_capacity(1).insert(Header { key: "h", value: Some(&envelope) });
    let (mut latency, mut appended) = (latencies()?, Appended::default());
    let mut started = Instant::now();
    // The first transaction is not counted: it creates the coordinator and its topic.
    let mut warm = false;
    while started.elapsed() < duration {
        let began = Instant::now();
        producer.begin_transaction()?;
        for row in 0..rows.batch {
            let key = format!("product-{row:036}");
            send(&producer, BaseRecord::to(topic).key(&key).payload(&body).headers(headers()))?;
        }
        // A commit with outstanding deliveries would take a fixed 100 ms.
        while producer.in_flight_count() > 0 {
            producer.poll(Duration::ZERO);
            thread::sleep(LOOK);
        }
        producer.commit_transaction(TIMEOUT)?;
        if !std::mem::replace(&mut warm, true) {
            started = Instant::now();
            continue;
        }
        record(&mut latency, began.elapsed());
        appended.batches += 1;
        appended.events += rows.batch as u64;
    }
    let (operations, took) = (latency.len(), started.elapsed());
    Ok(Measured { operations, took, latency: Some(latency), appended, cpu: Duration::ZERO })
}

fn send(producer: &BaseProducer, mut record: BaseRecord<'_, String, Vec<u8>>) -> Result<()> {
    loop {
        record = match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), record)) => {
                producer.poll(LOOK);
                record
            }
            Err((error, _)) => return Err(error.into()),
        };
    }
}
