use super::*;
use crate::shard::memory::Memory;
use events::{
    Environment, Event, Metadata, Money,
    environment::System,
    log::{Batch, BatchReader, memory::MemoryLog, opening},
    product::{Added, StockChanged, StockReason},
};
use std::sync::Arc;

const PARTITION: Partition = Partition(0);

/// A log with a product and so many changes of its stock, each a command with a key.
async fn log(changes: u32) -> MemoryLog {
    let environment = Arc::new(System::new());
    let log = MemoryLog::new(1, environment.clone());
    let node = environment.uuid();
    let (mut writer, _) =
        opening::open(&log, &*environment, PARTITION, node, Cursor::START, |_| {}).await.unwrap();
    let id = StreamId::product(Uuid::from_u128(7));
    for version in 1..=u64::from(changes) + 1 {
        let added = Added {
            name: "A book".into(),
            description: None,
            category: Some("books".into()),
            price: Money::new(899, "GBP".parse().unwrap()),
            initial_stock: 3,
        };
        let received = StockChanged { quantity: 1, reason: StockReason::Received };
        let event: Event = match version {
            1 => Event::Product(added.into()),
            _ => Event::Product(received.into()),
        };
        let metadata = Metadata {
            version,
            schema: event.schema(),
            command_id: Uuid::new_v5(&id.id, &version.to_be_bytes()),
            fingerprint: Fingerprint([u8::try_from(version).unwrap(); 16]),
            correlation_id: id.id,
            causation_id: id.id,
        };
        let record = event.to_record(environment.uuid(), id, environment.now(), metadata);
        let batch: Batch = writer.batch(environment.uuid(), vec![record]);
        writer.append(&batch).await.unwrap();
    }
    log
}

async fn fold(log: &MemoryLog) -> Memory {
    let mut memory = Memory::new(PARTITION);
    let mut reader = BatchReader::open(log, PARTITION, Cursor::START).await.unwrap();
    loop {
        let chunk = reader.next().await.unwrap();
        chunk.batches.iter().for_each(|batch| memory.fold(batch).unwrap());
        memory.cursor = chunk.cursor;
        if chunk.at_end {
            return memory;
        }
    }
}

fn bytes_of(memory: &Memory) -> Vec<u8> {
    let mut bytes = Vec::new();
    PartitionSnapshot::of(memory).unwrap().write(&mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn a_snapshot_reads_back_as_it_was_written() {
    let memory = fold(&log(20).await).await;
    let read = PartitionSnapshot::read(&bytes_of(&memory)[..]).unwrap().into_memory();
    let told = |memory: &Memory| {
        let streams: std::collections::BTreeMap<_, _> = memory.streams.iter().collect();
        let applied: Vec<_> = memory.dedupe.iter().collect();
        format!("{streams:?} {applied:?} {:?} {:?} {:?}", memory.cursor, memory.last, memory.time)
    };
    assert_eq!(told(&read), told(&memory));
    assert_eq!((memory.dedupe.len(), memory.unsaved, read.unsaved), (20, 21, 0));
    assert!(PartitionSnapshot::of(&Memory::new(PARTITION)).is_none());
}

#[tokio::test]
async fn a_damaged_snapshot_is_refused() {
    let bytes = bytes_of(&fold(&log(3).await).await);
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(PartitionSnapshot::read(&flipped[..]).is_err(), "byte {at}");
        assert!(PartitionSnapshot::read(&bytes[..at]).is_err(), "cut at {at}");
    }
    let longer = [&bytes[..], b"x"].concat();
    assert!(PartitionSnapshot::read(&longer[..]).is_err());
}

#[tokio::test]
async fn a_snapshot_of_another_build_is_refused() {
    let mut bytes = bytes_of(&fold(&log(0).await).await);
    // The name of the code comes first, after its length.
    bytes[1] = if bytes[1] == b'0' { b'1' } else { b'0' };
    let read = PartitionSnapshot::read(&bytes[..]);
    assert!(matches!(read, Err(SnapshotError::OtherCode)), "{read:?}");
}

#[tokio::test]
async fn a_snapshot_belongs_to_its_log_only() {
    let (ours, other, shorter) = (log(5).await, log(5).await, log(1).await);
    let snapshot = PartitionSnapshot::of(&fold(&ours).await).unwrap();
    assert!(snapshot.is_of(&ours).await.unwrap());
    assert!(!snapshot.is_of(&other).await.unwrap());
    assert!(!snapshot.is_of(&shorter).await.unwrap());
}

#[tokio::test]
async fn the_newest_file_is_kept_and_a_damaged_one_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let files = SnapshotFiles::open(dir.path().join("snapshots")).unwrap();
    assert!(files.load(PARTITION).await.is_none());
    for changes in [1, 4] {
        let memory = fold(&log(changes).await).await;
        files.save(PartitionSnapshot::of(&memory).unwrap()).await;
        let loaded = files.load(PARTITION).await.unwrap().into_memory();
        assert_eq!(loaded.last, memory.last);
    }
    let path = dir.path().join("snapshots/0.snapshot");
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    std::fs::write(&path, b"not a snapshot").unwrap();
    assert!(files.load(PARTITION).await.is_none());
}
