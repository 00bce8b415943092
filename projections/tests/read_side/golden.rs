//! A small fixed history, and the rows that each read model had for it when its revision was last
//! raised.
//!
//! A change of the rows or tables of a read model must raise the revision of its template, so that
//! old and new rows are never mistaken for each other. Afterwards `GOLDEN=write cargo test -p
//! projections --test read_side golden` records the new rows. The history itself is only appended
//! to, never changed. A program whose tests were not run notices an undeclared change at its start:
//! see `undeclared.rs`.

use crate::scenario::{Scenario, new_database};
use events::Timestamp;
use projections::{
    ReadModel,
    database::{self, PoolSettings},
    golden,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::{collections::BTreeMap, fs, path::PathBuf};
use uuid::Uuid;

/// An event of the history.
#[derive(Serialize)]
struct Told {
    stream: String,
    version: u64,
    #[serde(rename = "type")]
    event_type: String,
    schema: u16,
    time: Timestamp,
    event_id: Uuid,
    body: Box<RawValue>,
}

/// The rows that a read model made of the first events.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Made {
    /// The revision and a hash of the tables.
    fingerprint: String,
    events: i32,
    digest: String,
}

impl Made {
    fn revision(&self) -> &str {
        self.fingerprint.split_once('-').unwrap().0
    }
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_rows_needs_a_new_revision() {
    let pool = database::connect(new_database().await, PoolSettings::default()).await.unwrap();
    database::migrate(&pool).await.unwrap();
    let write = std::env::var("GOLDEN").is_ok_and(|wish| wish == "write");
    let noted = fs::read_to_string(file("rows.json")).unwrap();
    let noted: BTreeMap<String, Made> = serde_json::from_str(&noted).unwrap();
    let mut now = BTreeMap::new();
    for model in ReadModel::ALL {
        let made = async |events| Made {
            fingerprint: golden::fingerprint(model),
            events,
            digest: golden::digest(&pool, model, events).await.unwrap(),
        };
        let all = made(golden::events()).await;
        if let Some(noted) = noted.get(model.as_str()) {
            let again = made(noted.events).await;
            assert!(
                again == *noted || again.revision() != noted.revision(),
                "{model} makes other rows of the same events, or has other tables: raise its \
                 revision in projections/src/projection.rs, then GOLDEN=write (see \
                 docs/extending.md, \"Rules that no compiler checks\")"
            );
        }
        now.insert(model.to_string(), all);
    }
    if write {
        let text = serde_json::to_string_pretty(&now).unwrap();
        fs::write(file("rows.json"), text + "\n").unwrap();
        return;
    }
    assert_eq!(now, noted, "another revision, or a longer history: GOLDEN=write");
}

/// Writes a new history from a story. Only used to create the first one.
#[tokio::test]
#[ignore = "writes the history"]
async fn write_the_history() {
    let mut scenario = Scenario::new(1).await;
    scenario.scribe.write(&crate::shop::story(1, 12).0, 1).await;
    let mut lines = String::new();
    for (_, record) in &scenario.scribe.written {
        let told = Told {
            stream: record.stream.to_string(),
            version: record.metadata.version,
            event_type: record.event_type.to_string(),
            schema: record.metadata.schema,
            time: record.time,
            event_id: record.event_id,
            body: serde_json::from_slice(&record.body).unwrap(),
        };
        lines += &serde_json::to_string(&told).unwrap();
        lines.push('\n');
    }
    fs::create_dir_all(file("")).unwrap();
    fs::write(file("history.jsonl"), lines).unwrap();
}
