//! Just enough of RFC 6455 framing for an echo: whole frames, no extensions, no fragments.

/// Opcode of a text frame.
pub const TEXT: u8 = 0x1;
/// Opcode of a binary frame.
pub const BINARY: u8 = 0x2;
/// Opcode of a closing handshake.
pub const CLOSE: u8 = 0x8;
/// Opcode of a ping.
pub const PING: u8 = 0x9;
/// Opcode of a pong.
pub const PONG: u8 = 0xA;

/// Where one frame lies in a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// What kind of frame it is.
    pub opcode: u8,
    /// The masking key of a client's frame.
    pub mask: Option<[u8; 4]>,
    /// Offset of the payload.
    pub start: usize,
    /// Offset of the next frame.
    pub end: usize,
}

/// The frame that `input` begins with, or None while it is incomplete.
pub fn parse(input: &[u8]) -> Option<Frame> {
    let (&first, &second) = (input.first()?, input.get(1)?);
    let (mut start, length) = match second & 0x7f {
        126 => {
            let bytes: [u8; 2] = input.get(2..4)?.try_into().ok()?;
            (4, usize::from(u16::from_be_bytes(bytes)))
        }
        127 => {
            let bytes: [u8; 8] = input.get(2..10)?.try_into().ok()?;
            (10, u64::from_be_bytes(bytes) as usize)
        }
        short => (2, usize::from(short)),
    };
    let mask = if second & 0x80 == 0 {
        None
    } else {
        let key: [u8; 4] = input.get(start..start + 4)?.try_into().ok()?;
        start += 4;
        Some(key)
    };
    let end = start.checked_add(length)?;
    (end <= input.len()).then_some(Frame {
        opcode: first & 0x0f,
        mask,
        start,
        end,
    })
}

/// Append the head of a frame to `out`; with a mask it is a client's.
pub fn append_head(out: &mut Vec<u8>, opcode: u8, length: usize, mask: Option<[u8; 4]>) {
    out.push(0x80 | opcode);
    let masked = if mask.is_some() { 0x80 } else { 0 };
    match length {
        0..=125 => out.push(masked | length as u8),
        126..=0xffff => {
            out.push(masked | 0x7e);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(masked | 0x7f);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    if let Some(key) = mask {
        out.extend_from_slice(&key);
    }
}

/// Append a frame to `out`; with a mask it is a client's.
pub fn append(out: &mut Vec<u8>, opcode: u8, payload: &[u8], mask: Option<[u8; 4]>) {
    append_head(out, opcode, payload.len(), mask);
    match mask {
        Some(key) => append_masked(out, payload, key),
        None => out.extend_from_slice(payload),
    }
}

/// Append `payload`, each byte combined with its byte of the key.
pub fn append_masked(out: &mut Vec<u8>, payload: &[u8], key: [u8; 4]) {
    let start = out.len();
    out.extend_from_slice(payload);
    // By eights, so that the compiler can use wide registers.
    let wide = [key, key].concat();
    let mut chunks = out[start..].chunks_exact_mut(8);
    for chunk in &mut chunks {
        for (byte, mask) in chunk.iter_mut().zip(&wide) {
            *byte ^= mask;
        }
    }
    for (byte, mask) in chunks.into_remainder().iter_mut().zip(&wide) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::{BINARY, Frame, append, append_masked, parse};

    #[test]
    fn round_trips_every_length_form() {
        for length in [0, 1, 7, 125, 126, 127, 65_535, 65_536] {
            let payload: Vec<u8> = (0..length).map(|index| index as u8).collect();
            for mask in [None, Some([1, 2, 3, 4])] {
                let mut wire = Vec::new();
                append(&mut wire, BINARY, &payload, mask);
                let frame = parse(&wire).expect("whole frame");
                assert_eq!((frame.end, frame.mask), (wire.len(), mask));
                let mut clear = Vec::new();
                append_masked(
                    &mut clear,
                    &wire[frame.start..frame.end],
                    mask.unwrap_or_default(),
                );
                assert_eq!(clear, payload);
                for cut in 0..wire.len().min(20) {
                    assert_eq!(parse(&wire[..cut]), None, "cut at {cut}");
                }
            }
        }
    }

    #[test]
    fn reads_the_example_of_the_rfc() {
        let wire = [
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ];
        let mask = Some([0x37, 0xfa, 0x21, 0x3d]);
        assert_eq!(
            parse(&wire),
            Some(Frame {
                opcode: 1,
                mask,
                start: 6,
                end: 11
            })
        );
    }
}
