//! A checksum that stays the same in every build.

/// The 64-bit FNV-1a checksum of `bytes`. It tells texts and versions of code apart. It does not
/// protect against forgery.
pub fn fnv1a(bytes: impl IntoIterator<Item = u8>) -> u64 {
    let mix = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, mix)
}
