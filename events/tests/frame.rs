//! The frames of the embedded log: encoded batches decode, and no bytes make the decoder panic.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use events::log::frame::{FrameError, decode, encode};
use events::log::{Batch, Record};
use events::{Fingerprint, Metadata, Offset, StreamId, StreamKind, Timestamp};
use proptest::prelude::*;
use uuid::Uuid;

fn uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn record() -> impl Strategy<Value = Record> {
    let metadata = (any::<(u64, u16)>(), uuid(), any::<[u8; 16]>(), uuid(), uuid());
    let metadata =
        metadata.prop_map(|((version, schema), command_id, print, first, cause)| Metadata {
            version,
            schema,
            command_id,
            fingerprint: Fingerprint(print),
            correlation_id: first,
            causation_id: cause,
        });
    let stream = (0..=5u8, uuid());
    let stream =
        stream.prop_map(|(kind, id)| StreamId { kind: StreamKind::from_u8(kind).unwrap(), id });
    // From year 1 to year 9999.
    let time = -62_135_596_800_000_000..253_402_300_799_000_000_i64;
    let time = time.prop_map(|micros| Timestamp::from_timestamp_micros(micros).unwrap());
    let event_type = prop_oneof![Just("OrderPlaced".to_owned()), "[^\u{0}]{0,40}"];
    let traceparent = prop::option::of("[ -~]{1,255}".prop_map(Into::into));
    let body = prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
    (uuid(), stream, event_type, time, metadata, traceparent, body).prop_map(
        |(event_id, stream, event_type, time, metadata, traceparent, body)| Record {
            event_id,
            stream,
            event_type: event_type.into(),
            time,
            metadata,
            traceparent,
            body,
        },
    )
}

fn batch() -> impl Strategy<Value = Batch> {
    (uuid(), any::<u64>(), prop::collection::vec(record(), 1..20))
        .prop_map(|(id, term, records)| Batch { id, term, records })
}

fn offset_of(index: usize) -> Offset {
    Offset(i64::try_from(index).unwrap())
}

proptest! {
    #[test]
    fn what_was_encoded_decodes(batch in batch()) {
        let read = decode(encode(&batch).unwrap().into(), offset_of).unwrap();
        prop_assert_eq!(read.len(), batch.records.len());
        for (index, ((raw, record), stamp)) in
            read.iter().zip(&batch.records).zip(batch.stamps()).enumerate()
        {
            prop_assert_eq!((raw.offset, raw.stamp, &raw.record), (offset_of(index), stamp, record));
        }
    }

    #[test]
    fn no_bytes_make_decoding_panic(bytes: Vec<u8>) {
        let _ = decode(bytes.into(), offset_of);
    }

    /// Valid frames with one byte changed.
    #[test]
    fn no_damage_makes_decoding_panic(batch in batch(), at: prop::sample::Index, byte: u8) {
        let mut frames = encode(&batch).unwrap();
        let at = at.index(frames.len());
        frames[at] = byte;
        let _ = decode(frames.into(), offset_of);
    }

    /// Frames cut short decode only if the cut is between two records, and then only to the records
    /// before the cut.
    #[test]
    fn frames_cut_short_are_refused_or_shorter(batch in batch(), at: prop::sample::Index) {
        let frames = encode(&batch).unwrap();
        let at = at.index(frames.len());
        match decode(Bytes::from(frames).slice(..at), offset_of) {
            Ok(read) => prop_assert!(read.len() < batch.records.len()),
            Err(error) => prop_assert_eq!(error, FrameError),
        }
    }
}

#[test]
fn a_type_name_that_does_not_fit_is_refused() {
    let mut batch = Batch { id: Uuid::nil(), term: 1, records: Vec::new() };
    let metadata = Metadata {
        version: 1,
        schema: 1,
        command_id: Uuid::nil(),
        fingerprint: Fingerprint::default(),
        correlation_id: Uuid::nil(),
        causation_id: Uuid::nil(),
    };
    batch.records.push(Record {
        event_id: Uuid::nil(),
        stream: StreamId::order(Uuid::nil()),
        event_type: "x".repeat(256).into(),
        time: Timestamp::UNIX_EPOCH,
        metadata,
        traceparent: None,
        body: Bytes::new(),
    });
    assert_eq!(encode(&batch), Err(FrameError));
}
