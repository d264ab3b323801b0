//! The other end of a WebSocket, as tests need it: frames of a client, right or wrong, and frames of a server read back.
#![allow(dead_code, reason = "each test binary uses its part")]

use tokio::io::{AsyncRead, AsyncReadExt};

pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// A frame of a client: final, masked, the shortest length.
pub(crate) fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    fragment(true, opcode, payload)
}

/// A frame of a client that is final or not.
pub(crate) fn fragment(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = head(fin, opcode, payload.len() as u64);
    let key = [0x37, 0xfa, 0x21, 0x3d];
    bytes.extend_from_slice(&key);
    bytes.extend(
        payload
            .iter()
            .zip(key.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    bytes
}

/// The head of a masked frame without its key.
pub(crate) fn head(fin: bool, opcode: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![u8::from(fin) << 7 | opcode];
    match length {
        0..=125 => bytes.push(0x80 | length as u8),
        126..=0xffff => {
            bytes.push(0xfe);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0xff);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
    }
    bytes
}

/// A close frame of a client.
pub(crate) fn close(code: u16, reason: &str) -> Vec<u8> {
    frame(CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

/// Reads one frame of a server: opcode and payload. `None` at the end of the stream.
pub(crate) async fn read_frame<S: AsyncRead + Unpin>(stream: &mut S) -> Option<(u8, Vec<u8>)> {
    let (first, payload) = read_any_frame(stream).await?;
    assert_eq!(
        first & 0xf0,
        0x80,
        "a server's frame is final and has no reserved bits"
    );
    Some((first & 0x0f, payload))
}

/// Reads one frame of a server: first byte and payload. `None` at the end of the stream.
pub(crate) async fn read_any_frame<S: AsyncRead + Unpin>(stream: &mut S) -> Option<(u8, Vec<u8>)> {
    let first = stream.read_u8().await.ok()?;
    let length = match stream.read_u8().await.ok()? {
        126 => u64::from(stream.read_u16().await.ok()?),
        127 => stream.read_u64().await.ok()?,
        length => {
            assert!(length < 126, "a server's frame is not masked");
            u64::from(length)
        }
    };
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut payload).await.ok()?;
    Some((first, payload))
}

/// What the frame `(CLOSE, payload)` says.
pub(crate) fn close_of(frame: Option<(u8, Vec<u8>)>) -> (u16, String) {
    let (opcode, payload) = frame.expect("a close frame comes before the end of the stream");
    assert_eq!(opcode, CLOSE, "payload {payload:?}");
    let code = u16::from_be_bytes([payload[0], payload[1]]);
    (code, String::from_utf8(payload[2..].to_vec()).unwrap())
}

/// Random numbers that are the same in every run (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize) % end
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.below(256) as u8).collect()
    }

    /// Text of `count` characters of one to four bytes.
    pub(crate) fn text(&mut self, count: usize) -> String {
        (0..count)
            .map(|_| ['a', 'ß', '€', '🦀', '\u{7ff}', '\u{ffff}'][self.below(6)])
            .collect()
    }
}
