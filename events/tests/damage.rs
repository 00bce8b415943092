//! The embedded log on a disk that loses or changes data. Either every acknowledged batch is there,
//! or the log reports that it is damaged. It never silently returns a shorter or different history.
//!
//! Each run tries samples. `DAMAGE_SAMPLES=all` tries every byte and every bit, `DAMAGE_SEED=n`
//! other samples.

#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "environment variables say how many samples to run")]

use events::environment::System;
use events::log::contract::record;
use events::log::embedded::EmbeddedLog;
use events::log::{Batch, BatchReader, Claim, ConnectError, Cursor, EventLog, Writer, opening};
use events::{Environment, Partition, full_text};
use std::collections::BTreeMap;
use std::path::Path;
use tempfile::TempDir;
use uuid::Uuid;

const FILE: &str = "log.sqlite";
const WAL: &str = "log.sqlite-wal";
const MARK: &str = "log.mark";

/// The batches of each partition, without claims.
type History = Vec<Vec<Uuid>>;

/// A temporary folder, in memory if possible, where a sync costs nothing.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

fn batch(writer: &Writer, len: usize) -> Batch {
    let record = |_| record(&"x".repeat(200));
    writer.batch(System::new().uuid(), (0..len).map(record).collect())
}

async fn writer(log: &EmbeddedLog, partition: u32) -> Result<Writer, String> {
    let environment = System::new();
    let (partition, node) = (Partition(partition), environment.uuid());
    let opened = opening::open(log, &environment, partition, node, Cursor::START, |_| {}).await;
    opened.map(|(writer, _)| writer).map_err(|error| full_text(&error))
}

async fn read(log: &EmbeddedLog) -> Result<History, String> {
    let mut history = History::new();
    for partition in (0..log.partitions()).map(Partition) {
        let told = |error| full_text(&error);
        let mut reader = BatchReader::open(log, partition, Cursor::START).await.map_err(told)?;
        let mut ids = Vec::new();
        loop {
            let chunk = reader.next().await.map_err(told)?;
            let batches = chunk.batches.iter().filter(|batch| Claim::of(batch).is_none());
            ids.extend(batches.map(|batch| batch.id));
            if chunk.at_end {
                break;
            }
        }
        history.push(ids);
    }
    Ok(history)
}

/// The files of a log as a killed process leaves them, and the history that it acknowledged.
#[derive(Clone)]
struct Image {
    files: BTreeMap<&'static str, Vec<u8>>,
    acknowledged: History,
}

impl Image {
    fn taken(dir: &Path, acknowledged: &History) -> Self {
        let file = |name| Some((name, std::fs::read(dir.join(name)).ok()?));
        let files = [FILE, WAL, MARK].into_iter().filter_map(file).collect();
        Self { files, acknowledged: acknowledged.clone() }
    }

    fn put(&self) -> TempDir {
        let dir = folder();
        for (name, bytes) in &self.files {
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        dir
    }
}

/// Images of a log with one part in the database and one in the write-ahead log: before and after
/// the last batch.
async fn images() -> [Image; 2] {
    let dir = folder();
    let mut acknowledged: History = vec![vec![]; 2];
    let log = EmbeddedLog::open(dir.path(), Some(2)).unwrap();
    append(&log, &mut acknowledged, 60).await;
    log.close().await;
    let log = EmbeddedLog::open(dir.path(), None).unwrap();
    append(&log, &mut acknowledged, 8).await;
    let before = Image::taken(dir.path(), &acknowledged);
    let mut writer = writer(&log, 1).await.unwrap();
    let last = batch(&writer, 3);
    writer.append(&last).await.unwrap();
    acknowledged[1].push(last.id);
    [before, Image::taken(dir.path(), &acknowledged)]
}

async fn append(log: &EmbeddedLog, acknowledged: &mut History, batches: usize) {
    let mut writers = [writer(log, 0).await.unwrap(), writer(log, 1).await.unwrap()];
    for turn in 0..batches {
        let writer = &mut writers[turn % 2];
        let batch = batch(writer, 1 + turn % 4);
        writer.append(&batch).await.unwrap();
        acknowledged[turn % 2].push(batch.id);
    }
}

/// Opens a damaged log, appends a batch and reopens it. Returns the history without that batch, or
/// the text of the error.
async fn outcome(image: &Image) -> Result<History, String> {
    let dir = image.put();
    let told = |error: ConnectError| full_text(&error);
    let log = EmbeddedLog::open(dir.path(), None).map_err(told)?;
    let before = read(&log).await?;
    let mut writer = writer(&log, 0).await?;
    let more = batch(&writer, 2);
    writer.append(&more).await.map_err(|error| full_text(&error))?;
    log.close().await;
    drop(log);
    let mut after = read(&EmbeddedLog::open(dir.path(), None).map_err(told)?).await?;
    assert_eq!(after[0].pop(), Some(more.id), "the log acknowledged a batch and lost it");
    assert_eq!(before, after);
    Ok(before)
}

/// What the disk did to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Cut(usize),
    Flip { bit: usize },
    Zero { page: usize },
}

impl Damage {
    fn of(self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        match self {
            Self::Cut(at) => bytes.truncate(at),
            Self::Flip { bit } => bytes[bit / 8] ^= 1 << (bit % 8),
            Self::Zero { page } => {
                bytes.iter_mut().skip(page * 512).take(512).for_each(|it| *it = 0);
            }
        }
        bytes
    }
}

/// Some numbers of `0..most`, or all of them; the same ones for the same seed.
fn samples(most: usize, usually: usize) -> Vec<usize> {
    let wanted = std::env::var("DAMAGE_SAMPLES").unwrap_or_default();
    if wanted == "all" {
        return (0..most).collect();
    }
    let mut state = std::env::var("DAMAGE_SEED").ok().and_then(|it| it.parse().ok()).unwrap_or(1);
    let mut next = || -> u64 {
        // SplitMix64.
        state = u64::wrapping_add(state, 0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    let count = wanted.parse().unwrap_or(usually);
    (0..count).map(|_| usize::try_from(next() % most as u64).unwrap()).collect()
}

/// Damages one file in many ways. Returns how often the log was whole, and how often it reported
/// the damage.
async fn suffer(image: &Image, name: &'static str, damages: Vec<Damage>) -> (usize, usize) {
    let (mut whole, mut told) = (0, 0);
    for damage in damages {
        let mut suffered = image.clone();
        let bytes = damage.of(&image.files[name]);
        suffered.files.insert(name, bytes);
        match outcome(&suffered).await {
            Ok(history) => {
                assert_eq!(history, image.acknowledged, "{name} {damage:?}: a different history");
                whole += 1;
            }
            Err(text) => {
                assert!(text.contains("damaged"), "{name} {damage:?}: {text}");
                told += 1;
            }
        }
    }
    println!("{name}: {whole} whole, {told} reported as damaged");
    (whole, told)
}

/// Tries all kinds of damage on one file.
async fn suffer_all(name: &'static str) -> (usize, usize) {
    let [_, image] = images().await;
    let len = image.files[name].len();
    let cuts = samples(len, 150).into_iter().map(Damage::Cut);
    let flips = samples(len * 8, 150).into_iter().map(|bit| Damage::Flip { bit });
    let zeros = samples(len.div_ceil(512), 60).into_iter().map(|page| Damage::Zero { page });
    suffer(&image, name, cuts.chain(flips).chain(zeros).collect()).await
}

#[tokio::test]
async fn a_cut_or_changed_file_is_whole_or_reported_as_damaged() {
    let (_, told) = suffer_all(FILE).await;
    assert!(told > 0);
}

#[tokio::test]
async fn a_cut_or_changed_write_ahead_log_is_whole_or_reported_as_damaged() {
    let (_, told) = suffer_all(WAL).await;
    assert!(told > 0);
}

/// The mark only proves what was acknowledged; it is not part of the history.
#[tokio::test]
async fn a_cut_or_changed_mark_loses_nothing() {
    let (whole, told) = suffer_all(MARK).await;
    assert!(whole > 0);
    assert_eq!(told, 0);
}

#[tokio::test]
async fn a_missing_or_empty_file_is_reported_and_the_other_files_stay_as_they_are() {
    let [_, image] = images().await;
    for (name, empty) in [(FILE, true), (FILE, false), (WAL, true), (WAL, false)] {
        let mut damaged = image.clone();
        if empty {
            damaged.files.insert(name, Vec::new());
        } else {
            damaged.files.remove(name);
        }
        let dir = damaged.put();
        let Err(refused) = EmbeddedLog::open(dir.path(), None) else { panic!("{name} {empty}") };
        assert!(matches!(refused, ConnectError::Damaged { .. }), "{refused:?}");
        let Err(refused) = EmbeddedLog::open_read_only(dir.path()) else { panic!("{name}") };
        assert!(matches!(refused, ConnectError::Damaged { .. }), "{refused:?}");
        let left = Image::taken(dir.path(), &image.acknowledged);
        for (name, bytes) in damaged.files.iter().filter(|(_, bytes)| !bytes.is_empty()) {
            assert!(left.files.get(name) == Some(bytes), "{name} was changed");
        }
    }
}

/// A kill or a power cut leaves the torn end of a transaction that was never acknowledged.
#[tokio::test]
async fn a_torn_end_that_was_never_acknowledged_needs_no_repair() {
    let [before, after] = images().await;
    let (short, long) = (before.files[WAL].len(), after.files[WAL].len());
    let mut landed = 0;
    for at in samples(long - short, 60).into_iter().map(|more| short + more).chain([long]) {
        let mut torn = before.clone();
        torn.files.insert(WAL, after.files[WAL][..at].to_vec());
        let history = outcome(&torn).await.unwrap_or_else(|told| panic!("cut at {at}: {told}"));
        landed += usize::from(history == after.acknowledged);
        assert!(history == before.acknowledged || history == after.acknowledged, "cut at {at}");
    }
    assert!(landed > 0);
    let mut garbage = before.clone();
    garbage.files.get_mut(WAL).unwrap().extend([0xa5; 5_000]);
    assert_eq!(outcome(&garbage).await.unwrap(), before.acknowledged);
}

#[tokio::test]
async fn another_log_in_its_place_is_reported_and_accepted_once_the_mark_is_gone() {
    let ([_, mut image], [_, other]) = (images().await, images().await);
    image.files.insert(FILE, other.files[FILE].clone());
    image.files.insert(WAL, other.files[WAL].clone());
    let told = outcome(&image).await.unwrap_err();
    assert!(told.contains("another history"), "{told}");
    image.files.remove(MARK);
    assert_eq!(outcome(&image).await.unwrap(), other.acknowledged);
}

/// The documented way out: without its mark, the log continues with the remaining history.
#[tokio::test]
async fn the_remaining_history_is_served_once_the_mark_is_deleted() {
    let [before, mut image] = images().await;
    let cut = before.files[WAL].len() + 100;
    image.files.get_mut(WAL).unwrap().truncate(cut);
    let told = outcome(&image).await.unwrap_err();
    assert!(told.contains("partition 1 ends at") && told.contains("was acknowledged"), "{told}");
    image.files.remove(MARK);
    assert_eq!(outcome(&image).await.unwrap(), before.acknowledged);
}
