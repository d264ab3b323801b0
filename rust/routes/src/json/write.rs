//! Pieces of JSON that others put together.

use std::fmt::{self, Write};

/// Appends a string with its quotes.
pub fn push_string(text: &str, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut from = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let escape: u8 = match byte {
            b'"' | b'\\' => *byte,
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0..0x20 => b'u',
            _ => continue,
        };
        out.extend_from_slice(&bytes[from..at]);
        from = at + 1;
        out.extend_from_slice(&[b'\\', escape]);
        if escape == b'u' {
            let high = DIGITS[usize::from(byte >> 4)];
            out.extend_from_slice(&[b'0', b'0', high, DIGITS[usize::from(byte & 15)]]);
        }
    }
    out.extend_from_slice(&bytes[from..]);
    out.push(b'"');
}

/// Appends the shortest text that reads as this float, which must be finite; it is never the text of an integer.
pub fn push_float(value: f64, out: &mut Vec<u8>) {
    debug_assert!(value.is_finite(), "JSON has no word for it");
    // Shortest by the library's contract; `Debug` keeps `.0` and writes exponents where zeros would be many.
    write!(Bytes(out), "{value:?}").expect("a vector takes everything");
}

struct Bytes<'a>(&'a mut Vec<u8>);

impl Write for Bytes<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}
