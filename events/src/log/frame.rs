//! The format of batches in the embedded log: one row per batch, with its records in
//! length-prefixed frames.
//!
//! A frame has these fields, in bytes, big-endian: event id (16), stream kind (1), stream id (16),
//! time in µs since 1970 (8), packed header ([`header::LEN`]), length (1) and text of the type,
//! length (1) and text of the trace context, length (4) and bytes of the body.

use super::{Batch, RawRecord, Record, header};
use crate::{Offset, StreamId, StreamKind, Timestamp};
use bytes::{Buf, Bytes};
use uuid::Uuid;

/// The bytes are not valid frames.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of the batch cannot be decoded")]
pub struct FrameError;

/// Encodes a batch as frames.
///
/// # Errors
/// [`FrameError`] when a type or trace context is over 255 bytes, or a body over 4 GiB.
pub fn encode(batch: &Batch) -> Result<Vec<u8>, FrameError> {
    let mut frames =
        Vec::with_capacity(batch.records.iter().map(|record| record.body.len() + 256).sum());
    for (record, stamp) in batch.records.iter().zip(batch.stamps()) {
        frames.extend_from_slice(record.event_id.as_bytes());
        frames.push(record.stream.kind as u8);
        frames.extend_from_slice(record.stream.id.as_bytes());
        frames.extend_from_slice(&record.time.timestamp_micros().to_be_bytes());
        frames.extend_from_slice(&header::pack(&record.metadata, &stamp));
        for text in [&*record.event_type, record.traceparent.as_deref().unwrap_or_default()] {
            frames.push(u8::try_from(text.len()).map_err(|_| FrameError)?);
            frames.extend_from_slice(text.as_bytes());
        }
        let len = u32::try_from(record.body.len()).map_err(|_| FrameError)?;
        frames.extend_from_slice(&len.to_be_bytes());
        frames.extend_from_slice(&record.body);
    }
    Ok(frames)
}

/// Decodes the records of a batch's frames. `offset_of` gives the offset of the record at an index.
///
/// # Errors
/// [`FrameError`] for damaged bytes.
pub fn decode(
    mut frames: Bytes,
    offset_of: impl Fn(usize) -> Offset,
) -> Result<Vec<RawRecord>, FrameError> {
    const FIXED: usize = 16 + 1 + 16 + 8 + header::LEN;
    let mut records = Vec::new();
    while frames.has_remaining() {
        if frames.remaining() < FIXED {
            return Err(FrameError);
        }
        let event_id = Uuid::from_u128(frames.get_u128());
        let kind = StreamKind::from_u8(frames.get_u8()).ok_or(FrameError)?;
        let id = Uuid::from_u128(frames.get_u128());
        let time = Timestamp::from_timestamp_micros(frames.get_i64()).ok_or(FrameError)?;
        let (metadata, stamp) =
            header::unpack(&frames.split_to(header::LEN)).map_err(|_| FrameError)?;
        let event_type = text(&mut frames)?;
        let event_type = std::str::from_utf8(&event_type).map_err(|_| FrameError)?;
        let event_type = super::known_type(kind, event_type);
        let traceparent = text(&mut frames)?;
        let traceparent = match std::str::from_utf8(&traceparent).map_err(|_| FrameError)? {
            "" => None,
            text => Some(text.into()),
        };
        let len = frames.try_get_u32().map_err(|_| FrameError)? as usize;
        let body = split(&mut frames, len)?;
        records.push(RawRecord {
            offset: offset_of(records.len()),
            stamp,
            record: Record {
                event_id,
                stream: StreamId { kind, id },
                event_type,
                time,
                metadata,
                traceparent,
                body,
            },
        });
    }
    Ok(records)
}

fn split(frames: &mut Bytes, len: usize) -> Result<Bytes, FrameError> {
    if frames.remaining() < len {
        return Err(FrameError);
    }
    Ok(frames.split_to(len))
}

fn text(frames: &mut Bytes) -> Result<Bytes, FrameError> {
    let len = frames.try_get_u8().map_err(|_| FrameError)?;
    split(frames, usize::from(len))
}
