//! Every event ever written can be decoded. `golden/` holds an example of each type in each schema
//! version; these files never change.
//!
//! A file is named `<type>.v<schema>.json`. More examples of the same version are named
//! `<type>.v<schema>.<shape>.json`.

#![allow(clippy::unwrap_used)]

use events::{DecodeError, Event, StreamId, StreamKind};
use proptest::prelude::*;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use uuid::Uuid;

const KINDS: [StreamKind; 5] = [
    StreamKind::Product,
    StreamKind::Order,
    StreamKind::Customer,
    StreamKind::Email,
    StreamKind::Wishlist,
];

struct Golden {
    stream: StreamId,
    event_type: &'static str,
    schema: u16,
    current: u16,
    file: String,
    body: String,
}

/// All types that the program knows.
fn types() -> impl Iterator<Item = (StreamKind, &'static str, u16)> {
    let of = |kind| Event::types(kind).iter().map(move |&(name, schema)| (kind, name, schema));
    KINDS.into_iter().flat_map(of)
}

/// All golden files.
fn golden() -> Vec<Golden> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| parse(&path)).collect()
}

fn parse(path: &Path) -> Golden {
    let file = path.file_name().unwrap().to_str().unwrap().to_owned();
    let parts: Vec<&str> = file.split('.').collect();
    let ([name, schema, "json"] | [name, schema, _, "json"]) = *parts.as_slice() else {
        panic!("{file} is not named like a golden file");
    };
    let (kind, event_type, current) = types()
        .find(|&(_, known, _)| known == name)
        .unwrap_or_else(|| panic!("{file} is of a type that the program no longer knows"));
    Golden {
        stream: StreamId { kind, id: Uuid::from_u128(7) },
        event_type,
        schema: schema.strip_prefix('v').unwrap().parse().unwrap(),
        current,
        body: std::fs::read_to_string(path).unwrap(),
        file,
    }
}

#[test]
fn every_version_of_every_type_has_a_golden_file() {
    let present: BTreeSet<(&str, u16)> =
        golden().iter().map(|golden| (golden.event_type, golden.schema)).collect();
    let needed: BTreeSet<(&str, u16)> = types()
        .flat_map(|(_, name, current)| (1..=current).map(move |schema| (name, schema)))
        .collect();
    assert_eq!(present, needed);
}

#[test]
fn every_golden_file_decodes() {
    for Golden { stream, event_type, schema, file, body, .. } in golden() {
        let event = Event::from_json(stream, event_type, schema, body.as_bytes());
        assert_eq!(
            event.unwrap_or_else(|error| panic!("{file}: {error:?}")).type_name(),
            event_type
        );
    }
}

/// The program writes the current version in exactly the shape of its file, so a changed field
/// needs a new version.
#[test]
fn the_current_version_is_written_as_in_its_golden_file() {
    for Golden { stream, event_type, schema, current, file, body } in golden() {
        if schema == current {
            let event = Event::from_json(stream, event_type, schema, body.as_bytes()).unwrap();
            let written: Value = serde_json::from_slice(&event.to_json()).unwrap();
            assert_eq!(written, serde_json::from_str::<Value>(&body).unwrap(), "{file}");
            assert_eq!(event.schema(), current);
        }
    }
}

#[test]
fn wire_names_are_unique() {
    let names: Vec<_> = types().map(|(_, name, _)| name).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
}

/// The program does not guess at newer versions.
#[test]
fn a_newer_version_is_refused() {
    for Golden { stream, event_type, current, body, .. } in golden() {
        let newer = Event::from_json(stream, event_type, current + 1, body.as_bytes());
        assert!(matches!(newer, Err(DecodeError::UnknownSchema { .. })), "{newer:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_decoding_panic(
        name in prop::sample::select(types().collect::<Vec<_>>()),
        schema in 0..4u16,
        body: Vec<u8>,
    ) {
        let stream = StreamId { kind: name.0, id: Uuid::nil() };
        let _ = Event::from_json(stream, name.1, schema, &body);
    }

    /// A golden body with one byte changed.
    #[test]
    fn no_damaged_event_makes_decoding_panic(
        file: prop::sample::Index,
        at: prop::sample::Index,
        byte: u8,
    ) {
        let golden = golden();
        let Golden { stream, event_type, schema, body, .. } = file.get(&golden);
        let mut body = body.clone().into_bytes();
        let at = at.index(body.len());
        body[at] = byte;
        let _ = Event::from_json(*stream, event_type, *schema, &body);
    }
}
