//! Assigns streams to partitions as Kafka's default partitioner does, so that any Kafka client
//! finds a stream by its key.

use crate::{Partition, StreamId};

/// The partition of `stream` in a log of `partitions` partitions: `toPositive(murmur2(key)) %
/// partitions`, as in Apache Kafka's `BuiltInPartitioner.partitionForKey`.
pub fn partition_of(stream: StreamId, partitions: u32) -> Partition {
    let hash = stream.with_text(|key| murmur2(key.as_bytes()));
    Partition((hash & 0x7fff_ffff) % partitions)
}

/// `MurmurHash2` by Austin Appleby, with the seed of Apache Kafka
/// (`org.apache.kafka.common.utils.Utils`).
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    // Kafka uses 32-bit lengths, and keys are short.
    let mut hash = SEED ^ u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let tail = words.remainder();
    if !tail.is_empty() {
        for (index, &byte) in tail.iter().enumerate() {
            hash ^= u32::from(byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test vectors of Apache Kafka's `UtilsTest.testMurmur2`.
    #[test]
    #[allow(clippy::cast_sign_loss)]
    fn agrees_with_kafka() {
        for (key, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()), hash as u32, "{key}");
        }
    }
}
