//! The format of a record on Kafka: CloudEvents 1.0 in binary mode, and one packed header of ours.

use crate::{
    Offset, StreamId, Timestamp,
    environment::to_micros,
    log::{RawRecord, Record, Stamp, header, known_type},
};
use bytes::BytesMut;
use chrono::{DateTime, SecondsFormat};
use rdkafka::{
    Message,
    message::{Header, Headers, OwnedHeaders},
};
use uuid::Uuid;

/// `ce_source`, the same for all events of this program.
const SOURCE: &str = "/orderlog";

/// The name of the packed header.
const PACKED: &str = "ol";

/// Makes the headers of a record.
pub(super) fn headers(record: &Record, stamp: &Stamp) -> OwnedHeaders {
    fn text<'a>(key: &'a str, value: &'a str) -> Header<'a, &'a str> {
        Header { key, value: Some(value) }
    }
    let mut id = Uuid::encode_buffer();
    let time = record.time.to_rfc3339_opts(SecondsFormat::Micros, true);
    let packed = header::pack(&record.metadata, stamp);
    let headers = OwnedHeaders::new_with_capacity(9)
        .insert(text("ce_specversion", "1.0"))
        .insert(text("ce_id", record.event_id.hyphenated().encode_lower(&mut id)))
        .insert(text("ce_type", &record.event_type))
        .insert(text("ce_source", SOURCE))
        .insert(text("ce_time", &time))
        .insert(text("content-type", "application/json"))
        .insert(Header { key: PACKED, value: Some(packed.as_slice()) });
    let headers = record.stream.with_text(|stream| headers.insert(text("ce_subject", stream)));
    match record.traceparent.as_deref() {
        Some(trace) => headers.insert(text("traceparent", trace)),
        None => headers,
    }
}

/// A part of the record is missing or cannot be decoded.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record's {0} is missing or cannot be decoded")]
pub(super) struct BadPart(&'static str);

/// Whether another program wrote the record: it lacks our header.
pub(super) fn is_foreign(message: &impl Message) -> bool {
    message.headers().is_none_or(|headers| headers.iter().all(|header| header.key != PACKED))
}

/// Decodes a record. Its body is appended to `bodies`, a buffer that many records share, so that
/// memory is allocated and freed once for many records. It is usually freed on another thread.
pub(super) fn read(message: &impl Message, bodies: &mut BytesMut) -> Result<RawRecord, BadPart> {
    let stream: StreamId = text(message.key()).and_then(parse).ok_or(BadPart("key"))?;
    let headers = message.headers().ok_or(BadPart("headers"))?;
    let id = find(headers, 1, "ce_id").and_then(|id| Uuid::try_parse_ascii(id).ok());
    let event_type = text(find(headers, 2, "ce_type"));
    let time = text(find(headers, 4, "ce_time")).and_then(timestamp);
    let packed = find(headers, 6, PACKED).and_then(|packed| header::unpack(packed).ok());
    // The trace context is the last header, if it exists.
    let traceparent = (headers.count() > 8).then(|| find(headers, 8, "traceparent")).flatten();
    let traceparent = text(traceparent).map(Box::from);
    let (metadata, stamp) = packed.ok_or(BadPart("packed header"))?;
    let body = message.payload().ok_or(BadPart("payload"))?;
    let event_type = event_type.ok_or(BadPart("ce_type"))?;
    let (event_id, time) = (id.ok_or(BadPart("ce_id"))?, time.ok_or(BadPart("ce_time"))?);
    // Append only after all checks: `split` takes everything in the buffer.
    bodies.extend_from_slice(body);
    let record = Record {
        event_id,
        stream,
        event_type: known_type(stream.kind, event_type),
        time,
        metadata,
        traceparent,
        body: bodies.split().freeze(),
    };
    Ok(RawRecord { offset: Offset(message.offset()), stamp, record })
}

/// The value of a header. Tries the place where [`headers`] puts it first, because each access is
/// slow.
fn find<'a>(headers: &'a impl Headers, place: usize, key: &str) -> Option<&'a [u8]> {
    let at = |place| headers.try_get(place).filter(|header| header.key == key);
    at(place).or_else(|| (0..headers.count()).find_map(at))?.value
}

fn text(bytes: Option<&[u8]>) -> Option<&str> {
    std::str::from_utf8(bytes?).ok()
}

fn parse<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn timestamp(text: &str) -> Option<Timestamp> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| to_micros(time.to_utc()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Fingerprint, Metadata, StreamKind};
    use bytes::Bytes;
    use proptest::{prelude::*, sample::Index};
    use rdkafka::message::{OwnedMessage, Timestamp as Sent};

    fn read(message: &OwnedMessage) -> Result<RawRecord, BadPart> {
        super::read(message, &mut BytesMut::new())
    }

    fn message(key: Option<Vec<u8>>, headers: OwnedHeaders, body: Option<Vec<u8>>) -> OwnedMessage {
        OwnedMessage::new(body, key, "topic".into(), Sent::NotAvailable, 0, 7, Some(headers))
    }

    fn record(ids: [u128; 3], micros: i64, trace: Option<String>, body: Vec<u8>) -> RawRecord {
        let [event, stream, command] = ids.map(Uuid::from_u128);
        let metadata = Metadata {
            version: 3,
            schema: 1,
            command_id: command,
            fingerprint: Fingerprint([7; 16]),
            correlation_id: command,
            causation_id: event,
        };
        let stream = StreamId { kind: StreamKind::Order, id: stream };
        let record = Record {
            event_id: event,
            stream,
            event_type: "OrderConfirmed".into(),
            time: DateTime::from_timestamp_micros(micros).unwrap(),
            metadata,
            traceparent: trace.map(String::into_boxed_str),
            body: Bytes::from(body),
        };
        let stamp = Stamp { term: 2, batch_id: command, index: 1, len: 4 };
        RawRecord { offset: Offset(7), stamp, record }
    }

    fn written(raw: &RawRecord) -> OwnedMessage {
        written_with(raw, headers(&raw.record, &raw.stamp))
    }

    fn written_with(raw: &RawRecord, headers: OwnedHeaders) -> OwnedMessage {
        let key = raw.record.stream.with_text(|stream| stream.as_bytes().to_vec());
        message(Some(key), headers, Some(raw.record.body.to_vec()))
    }

    proptest! {
        #[test]
        fn what_was_written_reads_back(
            ids: [u128; 3],
            micros in 0..4_000_000_000_000_000_i64,
            trace: Option<String>,
            body: Vec<u8>,
        ) {
            let raw = record(ids, micros, trace, body);
            prop_assert_eq!(read(&written(&raw)), Ok(raw.clone()));
            prop_assert!(!is_foreign(&written(&raw)));
            // With the headers in another order.
            let mut turned = OwnedHeaders::new();
            let headers = headers(&raw.record, &raw.stamp);
            for place in (0..headers.count()).rev() {
                turned = turned.insert(headers.get(place));
            }
            prop_assert_eq!(read(&written_with(&raw, turned)), Ok(raw.clone()));
            // With several records in one buffer.
            let mut bodies = BytesMut::new();
            let read_twice = [&raw, &raw].map(|raw| super::read(&written(raw), &mut bodies));
            prop_assert_eq!(read_twice, [Ok(raw.clone()), Ok(raw)]);
        }

        /// Headers with a missing, foreign or damaged value.
        #[test]
        fn no_header_makes_it_panic(which in 0..9_usize, bytes: Option<Vec<u8>>, flip: Index) {
            let raw = record([1, 2, 3], 0, Some("00-1-2-3".into()), b"{}".to_vec());
            let good = headers(&raw.record, &raw.stamp);
            let mut changed = OwnedHeaders::new();
            for (number, header) in good.iter().enumerate() {
                let mut value = header.value.map(<[u8]>::to_vec);
                if number == which {
                    value = bytes.clone().or_else(|| {
                        let mut value = value?;
                        let at = flip.index(value.len());
                        value[at] ^= 1;
                        Some(value)
                    });
                }
                changed = changed.insert(Header { key: header.key, value: value.as_ref() });
            }
            let _ = read(&message(Some(b"order-x".to_vec()), changed.clone(), Some(vec![])));
            let key = raw.record.stream.with_text(|stream| stream.as_bytes().to_vec());
            let _ = read(&message(Some(key), changed, bytes));
        }

        #[test]
        fn a_record_without_our_headers_is_foreign(key: Option<Vec<u8>>, body: Option<Vec<u8>>) {
            let message = message(key, OwnedHeaders::new(), body);
            prop_assert!(read(&message).is_err() && is_foreign(&message));
        }
    }
}
