//! `schemas/` holds the JSON Schema of each event type in each schema version ever written. Files
//! of older versions never change.
//!
//! `UPDATE_SCHEMAS=1 cargo test --test schemas today` writes the files of the current
//! versions anew.

#![allow(clippy::unwrap_used)]

use events::json_schema;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The JSON files of a folder, by name.
fn files(name: &str) -> BTreeMap<String, Value> {
    let paths = fs::read_dir(folder(name)).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: PathBuf| {
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        (file, serde_json::from_str(&text).unwrap())
    };
    paths.map(read).collect()
}

/// `OrderPlaced.v1.minimal.json` belongs to the schema `OrderPlaced.v1.json`.
fn version_of(file: &str) -> String {
    let parts: Vec<&str> = file.split('.').collect();
    format!("{}.{}.json", parts[0], parts[1])
}

#[test]
fn the_schemas_written_today_match_the_types() {
    let update = std::env::vars().any(|(name, _)| name == "UPDATE_SCHEMAS");
    for event in json_schema::current() {
        let path = folder("schemas").join(event.file());
        let mut text = serde_json::to_string_pretty(&event.schema).unwrap();
        text.push('\n');
        if update {
            fs::write(&path, &text).unwrap();
        }
        let checked_in = fs::read_to_string(&path).unwrap_or_default();
        // A version that was ever written keeps its schema: a change of shape needs a new version.
        assert!(checked_in == text, "{} differs from the schema of the event type", event.file());
    }
}

#[test]
fn every_version_of_every_event_has_a_schema() {
    let needed = json_schema::current().into_iter().flat_map(|event| {
        (1..=event.version).map(move |version| format!("{}.v{version}.json", event.event_type))
    });
    let present: BTreeSet<String> = files("schemas").into_keys().collect();
    assert_eq!(present, needed.collect());
    let known = json_schema::all().iter().map(json_schema::EventSchema::file).collect();
    assert_eq!(present, known);
}

#[test]
fn every_golden_file_is_valid_for_the_schema_of_its_version() {
    let schemas = files("schemas");
    let mut used = BTreeSet::new();
    for (file, event) in files("golden") {
        let version = version_of(&file);
        let schema = schemas.get(&version).unwrap_or_else(|| panic!("{file} has no schema"));
        let options = jsonschema::options().should_validate_formats(true);
        let validator = options.build(schema).unwrap();
        let faults: Vec<_> = validator.iter_errors(&event).map(|fault| fault.to_string()).collect();
        assert!(faults.is_empty(), "{file}: {faults:?}");
        used.insert(version);
    }
    assert_eq!(used, schemas.into_keys().collect(), "a schema without a golden file");
}

#[test]
fn a_schema_forbids_members_that_it_does_not_name() {
    for event in json_schema::current() {
        let validator = jsonschema::validator_for(&event.schema).unwrap();
        let unknown = serde_json::json!({ "colour": "red" });
        assert!(!validator.is_valid(&unknown), "{}", event.file());
    }
}
