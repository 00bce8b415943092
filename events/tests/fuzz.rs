//! Whatever bytes the log contains, decoding returns an event or an error and never panics.
//!
//! `PROPTEST_CASES=n` runs more cases.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use events::log::{Batch, Record, frame, header};
use events::{
    Event, Fingerprint, Metadata, Offset, Partition, Position, StreamId, StreamKind, Timestamp,
};
use proptest::{prelude::*, sample::Index};
use serde_json::Value;
use uuid::Uuid;

const KINDS: [StreamKind; 5] = [
    StreamKind::Order,
    StreamKind::Product,
    StreamKind::Customer,
    StreamKind::Email,
    StreamKind::Wishlist,
];

/// An example body of every schema version ever written, with its stream kind, type and version.
fn golden() -> Vec<(StreamKind, String, u16, Value)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/golden")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let mut parts = name.split('.');
        let (wire, schema) = (parts.next().unwrap(), parts.next().unwrap());
        let schema = schema.trim_start_matches('v').parse().unwrap();
        let body = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let of = |kind: &StreamKind| Event::types(*kind).iter().any(|&(known, _)| known == wire);
        let kind = KINDS
            .into_iter()
            .find(of)
            .unwrap_or_else(|| panic!("no stream kind has the type {wire}"));
        found.push((kind, wire.to_owned(), schema, body));
    }
    assert!(found.len() > 30);
    found
}

fn record(kind: StreamKind, event_type: String, schema: u16, body: Vec<u8>) -> Record {
    let id = Uuid::from_u128(9);
    let metadata = Metadata {
        version: 1,
        schema,
        command_id: id,
        fingerprint: Fingerprint::default(),
        correlation_id: id,
        causation_id: id,
    };
    Record {
        event_id: id,
        stream: StreamId { kind, id },
        event_type: event_type.into(),
        time: Timestamp::UNIX_EPOCH,
        metadata,
        traceparent: None,
        body: Bytes::from(body),
    }
}

const AT: Position = Position { partition: Partition(0), offset: Offset(1) };

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{0,12}", inner, 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

#[test]
fn every_golden_body_decodes() {
    for (kind, wire, schema, body) in golden() {
        record(kind, wire, schema, body.to_string().into_bytes()).decode(AT).unwrap();
    }
}

proptest! {
    #[test]
    fn no_body_makes_the_codec_panic(which: Index, schema in 0..4_u16, any in any_json(), bytes: Vec<u8>) {
        let all = golden();
        let (kind, wire, ..) = which.get(&all);
        let _ = record(*kind, wire.clone(), schema, any.to_string().into_bytes()).decode(AT);
        let _ = record(*kind, wire.clone(), schema, bytes).decode(AT);
    }

    /// A valid body with one member or one bit changed.
    #[test]
    fn no_changed_body_makes_the_codec_panic(
        which: Index, member: Index, new in any_json(), flip: Index, bit in 0..8_u8,
    ) {
        let all = golden();
        let (kind, wire, schema, body) = which.get(&all).clone();
        let mut changed = body.clone();
        if let Some(members) = changed.as_object_mut().filter(|members| !members.is_empty()) {
            let name = member.get(&members.keys().cloned().collect::<Vec<_>>()).clone();
            members.insert(name, new);
        }
        let _ = record(kind, wire.clone(), schema, changed.to_string().into_bytes()).decode(AT);
        let mut bytes = body.to_string().into_bytes();
        let at = flip.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let _ = record(kind, wire, schema, bytes).decode(AT);
    }

    /// An event of a later program is never decoded as one that this program knows.
    #[test]
    fn a_type_or_schema_of_the_future_is_refused(which: Index, wire in "[A-Z][A-Za-z]{3,20}Future") {
        let all = golden();
        let (kind, known, _, body) = which.get(&all).clone();
        let body = body.to_string().into_bytes();
        prop_assert!(record(kind, wire, 1, body.clone()).decode(AT).is_err());
        prop_assert!(record(kind, known, 99, body).decode(AT).is_err());
    }

    #[test]
    fn no_frames_make_it_panic(bytes: Vec<u8>, flip: Index, bit in 0..8_u8, cut: Index) {
        let _ = frame::decode(Bytes::from(bytes), |_| Offset::START);
        let one = || record(StreamKind::Order, "OrderConfirmed".into(), 1, b"{}".to_vec());
        let batch = Batch { id: Uuid::from_u128(1), term: 1, records: vec![one(), one()] };
        let good = frame::encode(&batch).unwrap();
        let mut changed = good.clone();
        let at = flip.index(changed.len());
        changed[at] ^= 1 << bit;
        let _ = frame::decode(Bytes::from(changed), |_| Offset::START);
        let cut = Bytes::from(good).slice(..cut.index(2 * (16 + 1 + 16 + 8 + header::LEN)));
        if let Ok(records) = frame::decode(cut, |_| Offset::START) {
            prop_assert!(records.len() < 2);
        }
    }

    #[test]
    fn a_position_or_stream_reads_back_or_is_refused(text: String, like in "[a-z]{0,9}-?[0-9a-f-]{0,36}") {
        for text in [text, like] {
            if let Ok(position) = text.parse::<Position>() {
                prop_assert_eq!(position.to_string().parse::<Position>().unwrap(), position);
            }
            if let Ok(stream) = text.parse::<StreamId>() {
                prop_assert_eq!(stream.to_string().parse::<StreamId>().unwrap(), stream);
            }
        }
    }
}
