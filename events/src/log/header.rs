//! The packed header: the metadata of a record that has no CloudEvents attribute.
//!
//! The layout is fixed, big-endian, 107 bytes. On Kafka it is the record header `ol`; in the
//! embedded log it is part of each frame:
//!
//! ```text
//! 0    layout version (1)        1    stream version, u64       9    schema version, u16
//! 11   command id                27   request fingerprint       43   correlation id
//! 59   causation id              75   writer term, u64          83   batch id
//! 99   index in batch, u32       103  length of batch, u32      107  end
//! ```

use super::Stamp;
use crate::{Fingerprint, Metadata};
use uuid::Uuid;

/// Length of a packed header, in bytes.
pub const LEN: usize = 107;

const LAYOUT: u8 = 1;

/// The bytes are not a packed header of a known layout.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the packed header cannot be decoded")]
pub struct HeaderError;

/// Packs the metadata and the stamp of a record.
pub fn pack(metadata: &Metadata, stamp: &Stamp) -> [u8; LEN] {
    let mut packed = [0; LEN];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        packed[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(&[LAYOUT]);
    put(&metadata.version.to_be_bytes());
    put(&metadata.schema.to_be_bytes());
    put(metadata.command_id.as_bytes());
    put(&metadata.fingerprint.0);
    put(metadata.correlation_id.as_bytes());
    put(metadata.causation_id.as_bytes());
    put(&stamp.term.to_be_bytes());
    put(stamp.batch_id.as_bytes());
    put(&stamp.index.to_be_bytes());
    put(&stamp.len.to_be_bytes());
    packed
}

/// Unpacks the bytes that [`pack`] made.
///
/// # Errors
/// [`HeaderError`] for a wrong length or layout, or an index outside its batch.
pub fn unpack(packed: &[u8]) -> Result<(Metadata, Stamp), HeaderError> {
    let packed: &[u8; LEN] = packed.try_into().map_err(|_| HeaderError)?;
    let mut rest = packed.as_slice();
    if take::<1>(&mut rest) != [LAYOUT] {
        return Err(HeaderError);
    }
    let metadata = Metadata {
        version: u64::from_be_bytes(take(&mut rest)),
        schema: u16::from_be_bytes(take(&mut rest)),
        command_id: Uuid::from_bytes(take(&mut rest)),
        fingerprint: Fingerprint(take(&mut rest)),
        correlation_id: Uuid::from_bytes(take(&mut rest)),
        causation_id: Uuid::from_bytes(take(&mut rest)),
    };
    let stamp = Stamp {
        term: u64::from_be_bytes(take(&mut rest)),
        batch_id: Uuid::from_bytes(take(&mut rest)),
        index: u32::from_be_bytes(take(&mut rest)),
        len: u32::from_be_bytes(take(&mut rest)),
    };
    if stamp.index >= stamp.len {
        return Err(HeaderError);
    }
    Ok((metadata, stamp))
}

/// Takes the next `N` bytes. The caller has checked the total length.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    let (head, tail) = rest.split_at(N);
    bytes.copy_from_slice(head);
    *rest = tail;
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_packed_unpacks(version: u64, schema: u16, ids: [u128; 5], term: u64, len in 1..u32::MAX) {
            let metadata = Metadata {
                version,
                schema,
                command_id: Uuid::from_u128(ids[0]),
                fingerprint: Fingerprint(ids[1].to_be_bytes()),
                correlation_id: Uuid::from_u128(ids[2]),
                causation_id: Uuid::from_u128(ids[3]),
            };
            let stamp = Stamp { term, batch_id: Uuid::from_u128(ids[4]), index: len - 1, len };
            prop_assert_eq!(unpack(&pack(&metadata, &stamp)), Ok((metadata, stamp)));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = unpack(&bytes);
        }
    }
}
