//! As much of HTTP/2 as it takes to ask and not to listen.

/// The beginning of a connection, with a setting that closes the window of each stream.
pub const CLOSED_WINDOWS: &[u8] =
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0";

/// The frame that opens a stream with a `GET` request.
pub fn get(stream: u32, path: &str, token: &str) -> Vec<u8> {
    // `:method: GET` and `:scheme: http`, then literals: `:authority`, `:path`, `authorization`.
    let mut block = vec![0x82, 0x86, 0x01];
    literal(&mut block, "shop");
    block.push(0x04);
    literal(&mut block, path);
    block.extend([0x0f, 0x08]);
    literal(&mut block, &format!("Bearer {token}"));
    let length = u32::try_from(block.len()).unwrap_or_default().to_be_bytes();
    // HEADERS, with the flags END_STREAM and END_HEADERS.
    let mut frame = [&length[1..], &[1, 5], &stream.to_be_bytes()].concat();
    frame.append(&mut block);
    frame
}

/// A text of HPACK: its length in seven bits, what is above that in further bytes, the text.
fn literal(block: &mut Vec<u8>, text: &str) {
    const SEVEN_BITS: usize = 0x7f;
    if text.len() < SEVEN_BITS {
        block.push(low_byte(text.len()));
    } else {
        block.push(low_byte(SEVEN_BITS));
        let mut rest = text.len() - SEVEN_BITS;
        while rest > SEVEN_BITS {
            block.push(low_byte(rest & SEVEN_BITS) | 0x80);
            rest >>= 7;
        }
        block.push(low_byte(rest));
    }
    block.extend_from_slice(text.as_bytes());
}

fn low_byte(number: usize) -> u8 {
    u8::try_from(number & 0xff).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(text: &str) -> Vec<u8> {
        let mut block = Vec::new();
        literal(&mut block, text);
        block.truncate(block.len() - text.len());
        block
    }

    /// The examples of RFC 7541, with a prefix of seven bits.
    #[test]
    fn a_length_takes_as_many_bytes_as_it_needs() {
        assert_eq!(lengths(&"a".repeat(10)), [10]);
        assert_eq!(lengths(&"a".repeat(127)), [127, 0]);
        assert_eq!(lengths(&"a".repeat(127 + 128)), [127, 0x80, 1]);
        assert_eq!(lengths(&"a".repeat(1337)), [127, 0xba, 0x09]);
    }

    #[test]
    fn a_frame_tells_its_length_and_its_stream() {
        let frame = get(3, "/readyz", "t");
        let length = u32::from_be_bytes([0, frame[0], frame[1], frame[2]]);
        assert_eq!(usize::try_from(length).unwrap(), frame.len() - 9);
        assert_eq!(frame[3..9], [1, 5, 0, 0, 0, 3]);
    }
}
