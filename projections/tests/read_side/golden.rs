//! A small fixed history, and the rows that each read model made of it when its revision was last raised.
//!
//! Whoever changes what rows say must raise the revision of the read model's template, so that old and new rows are never
//! taken for the same. Then `GOLDEN=write cargo test -p projections --test read_side golden` notes the new rows; the history
//! itself is never changed, only appended to.

use crate::scenario::{Scenario, settings};
use events::{Fingerprint, Metadata, Partition, StreamId, Timestamp, log::Record};
use projections::ReadModel;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::AssertSqlSafe;
use std::{collections::BTreeMap, fs, path::PathBuf};
use uuid::Uuid;

/// An event of the history.
#[derive(Serialize, Deserialize)]
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

/// What a read model made of it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Made {
    fingerprint: String,
    rows: i64,
    digest: String,
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

fn record(told: Told) -> Record {
    let metadata = Metadata {
        version: told.version,
        schema: told.schema,
        command_id: told.event_id,
        fingerprint: Fingerprint::default(),
        correlation_id: told.event_id,
        causation_id: told.event_id,
    };
    Record {
        event_id: told.event_id,
        stream: told.stream.parse::<StreamId>().unwrap(),
        event_type: told.event_type.into(),
        time: told.time,
        metadata,
        traceparent: None,
        body: told.body.get().to_owned().into(),
    }
}

/// A log in memory leaves gaps by chance, so where an event stands is no part of it.
async fn made(scenario: &Scenario, model: ReadModel) -> Made {
    let query = format!(
        "select v.fingerprint, d.* from control.version v, (select count(*), \
         md5(coalesce(string_agg(r, e'\\n' order by r collate \"C\"), '')) \
         from {model}_v1.{model} t, lateral (select (to_jsonb(t) - 'log_offset')::text as r) s) d \
         where projection = $1"
    );
    let row: (String, i64, String) = sqlx::query_as(AssertSqlSafe(query))
        .bind(model.as_str())
        .fetch_one(&scenario.pool)
        .await
        .unwrap();
    Made { fingerprint: row.0, rows: row.1, digest: row.2 }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_changes_what_rows_say_raises_the_revision() {
    let mut scenario = Scenario::new(1).await;
    let slice = fs::read_to_string(file("history.jsonl")).unwrap();
    for line in slice.lines() {
        let told: Told = serde_json::from_str(line).unwrap();
        scenario.scribe.append(Partition(0), vec![record(told)]).await;
    }
    let projector = scenario.projector(settings()).await;
    scenario.settle().await;
    let mut now = BTreeMap::new();
    for model in ReadModel::ALL {
        now.insert(model.to_string(), made(&scenario, model).await);
    }
    projector.stop().await;
    if std::env::var("GOLDEN").is_ok_and(|wish| wish == "write") {
        let text = serde_json::to_string_pretty(&now).unwrap();
        fs::write(file("rows.json"), text + "\n").unwrap();
        return;
    }
    let noted = fs::read_to_string(file("rows.json")).unwrap();
    let noted: BTreeMap<String, Made> = serde_json::from_str(&noted).unwrap();
    for (model, now) in &now {
        let Some(noted) = noted.get(model) else {
            panic!("the rows of {model} are not noted yet: GOLDEN=write");
        };
        assert!(
            now == noted || now.fingerprint != noted.fingerprint,
            "{model} makes other rows of the same events: raise its revision, then GOLDEN=write"
        );
        assert_eq!(now, noted, "{model} has another revision: GOLDEN=write");
    }
}

/// Makes the history anew from a story; only for a first one.
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
