//! A damaged and a foreign record in a topic: the partition closes and reports the position, and
//! the others continue.

use crate::{
    app::{eventually, fresh_topic, ground},
    client::{Answer, Api},
    failover::Broker,
    program::{Program, delete_topic, output, print_of},
};
use events::{StreamId, partitioner::partition_of};
use orderlog::config::LogChoice;
use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, path::Path, time::Duration};
use uuid::Uuid;

const PARTITIONS: u32 = 12;

/// A record batch of Kafka: its place in the file, its first offset, and whether it is a marker.
struct Batch {
    at: usize,
    len: usize,
    first: i64,
    control: bool,
}

/// The batches of a segment, in Kafka's documented format (magic 2).
fn batches(segment: &[u8]) -> Vec<Batch> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(head) = segment.get(at..at + 61) {
        let first = i64::from_be_bytes(head[..8].try_into().unwrap());
        let len = 12 + u32::from_be_bytes(head[8..12].try_into().unwrap()) as usize;
        let attributes = u16::from_be_bytes(head[21..23].try_into().unwrap());
        found.push(Batch { at, len, first, control: attributes & 0x20 != 0 });
        at += len;
    }
    found
}

/// Flips a bit in our last batch. Returns the first offsets of the batch before it and of this
/// batch.
fn flip(segment: &Path) -> (i64, i64) {
    let mut bytes = fs::read(segment).unwrap();
    let ours: Vec<_> = batches(&bytes).into_iter().filter(|batch| !batch.control).collect();
    let [.., before, last] = ours.as_slice() else { panic!("there are few batches") };
    bytes[last.at + last.len - 3] ^= 4;
    fs::write(segment, bytes).unwrap();
    (before.first, last.first)
}

/// Writes a record that is not ours, as any client with write access can.
fn write_nonsense(servers: &str, topic: &str, partition: u32) -> i64 {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", servers).create().unwrap();
    let number = i32::try_from(partition).unwrap();
    let sent =
        producer.send(BaseRecord::to(topic).partition(number).key("somebody").payload("hello?"));
    assert!(sent.is_ok());
    producer.flush(Duration::from_secs(30)).unwrap();
    let (_, end) =
        producer.client().fetch_watermarks(topic, number, Duration::from_secs(30)).unwrap();
    end - 1
}

async fn rename(api: &Api, product: Uuid) -> Answer {
    api.patch(&format!("/products/{product}"), &json!({"name": "Another"})).send().await
}

/// Adds products until each partition has one.
async fn a_product_in_each(api: &Api) -> BTreeMap<u32, Uuid> {
    let mut found = BTreeMap::new();
    while found.len() < PARTITIONS as usize {
        let product = api.product(100, 10).await;
        found.insert(partition_of(StreamId::product(product), PARTITIONS).0, product);
    }
    found
}

fn findings(ground: &crate::app::Ground) -> Vec<(u64, u64, String)> {
    let audit = output(ground, &["audit", "--json"]);
    assert_eq!(audit.status.code(), Some(1), "{}", String::from_utf8_lossy(&audit.stderr));
    let report: Value = serde_json::from_slice(&audit.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap().iter();
    let one = |finding: &Value| {
        let number = |name: &str| finding[name].as_u64().unwrap();
        (number("partition"), number("offset"), finding["fault"].as_str().unwrap().to_owned())
    };
    findings.map(one).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_record_on_kafka_closes_its_partition_and_a_foreign_one_does_not_count() {
    let (Some(log), Some(broker)) = (fresh_topic(), Broker::of_the_environment()) else { return };
    let LogChoice::Kafka { bootstrap_servers, topic, .. } = log.clone() else { return };
    let ground = ground(log.clone()).await;
    let program = Program::start(&ground);
    let products = a_product_in_each(&program.staff).await;
    assert!(program.stop().success());
    assert!(print_of(&ground, &["audit"]).contains("nothing is wrong"));

    let (damaged, foreign) = (4, 9);
    let nonsense = write_nonsense(&bootstrap_servers, &topic, foreign);
    broker.stop().await;
    let segment = broker.segment(&topic, damaged);
    let whole = fs::read(&segment).unwrap();
    let (sound, flipped) = flip(&segment);
    broker.restart().await;

    let found = findings(&ground);
    let stranger = (u64::from(foreign), nonsense.unsigned_abs(), "foreign-record".to_owned());
    // The library only reports its position, which is between the last good batch and the damaged
    // one.
    assert_eq!((found.len(), found[0].0), (2, u64::from(damaged)), "{found:?}");
    assert!((sound + 1..=flipped).contains(&found[0].1.cast_signed()), "{found:?}, {flipped}");
    assert_eq!(found[1], stranger);

    let program = Program::start(&ground);
    for (&partition, &product) in &products {
        let answer = rename(&program.staff, product).await;
        if partition == damaged {
            assert_eq!((answer.status, answer.problem()), (503, "command-not-applied"));
        } else {
            assert_eq!(answer.status, 200, "partition {partition}: {:?}", answer.body);
        }
    }
    // The other partitions are served, so the node gets requests, and says which ones are closed.
    let closed = [damaged];
    eventually("the closed partition is named", async || {
        let ready = program.staff.ready().await?;
        let named = ready["closed"].as_array()?;
        let failed = named.iter().filter(|one| one["state"] == "failed");
        failed
            .map(|one| one["partition"].as_u64())
            .eq(closed.map(u64::from).map(Some))
            .then_some(())
    })
    .await;
    eventually("the read models say where they stopped", async || {
        let told = print_of(&ground, &["projections"]);
        assert!(!told.contains(&format!("partition {foreign} stopped: ")), "{told}");
        told.contains(&format!("partition {damaged} stopped: ")).then_some(())
    })
    .await;
    assert!(program.stop().success());

    // Put an intact copy of the file back.
    broker.stop().await;
    let mut repaired = fs::read(&segment).unwrap();
    repaired[..whole.len()].copy_from_slice(&whole);
    fs::write(&segment, repaired).unwrap();
    broker.restart().await;
    assert_eq!(findings(&ground), [stranger]);
    let program = Program::start(&ground);
    assert_eq!(rename(&program.staff, products[&damaged]).await.status, 200);
    assert!(program.stop().success());
    delete_topic(&log).await;
}
