//! Just as much of Protocol Buffers as OTLP needs: fields in the wire format of proto3, written, and read from short answers.

/// A message that is written.
#[derive(Clone, Debug, Default)]
pub(super) struct Message(pub(super) Vec<u8>);

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const BYTES: u32 = 2;
const FIXED32: u32 = 5;

fn push_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

impl Message {
    fn tag(&mut self, field: u32, kind: u32) {
        push_varint(&mut self.0, u64::from(field << 3 | kind));
    }

    pub(super) fn number(&mut self, field: u32, value: u64) {
        self.tag(field, VARINT);
        push_varint(&mut self.0, value);
    }

    pub(super) fn fixed64(&mut self, field: u32, value: u64) {
        self.tag(field, FIXED64);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn fixed32(&mut self, field: u32, value: u32) {
        self.tag(field, FIXED32);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn double(&mut self, field: u32, value: f64) {
        self.fixed64(field, value.to_bits());
    }

    pub(super) fn bytes(&mut self, field: u32, value: &[u8]) {
        self.tag(field, BYTES);
        push_varint(&mut self.0, value.len() as u64);
        self.0.extend_from_slice(value);
    }

    pub(super) fn text(&mut self, field: u32, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    /// A message in this one. Most are so short that their length is one byte, for which room is left.
    pub(super) fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        self.tag(field, BYTES);
        let at = self.0.len();
        self.0.push(0);
        write(self);
        let length = self.0.len() - at - 1;
        if length < 0x80 {
            self.0[at] = length as u8;
        } else {
            let mut prefix = Vec::with_capacity(10);
            push_varint(&mut prefix, length as u64);
            self.0.splice(at..=at, prefix);
        }
    }

    /// Numbers of eight bytes each, packed.
    pub(super) fn packed64(&mut self, field: u32, values: impl ExactSizeIterator<Item = u64>) {
        self.tag(field, BYTES);
        push_varint(&mut self.0, values.len() as u64 * 8);
        for value in values {
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }
}

/// The value of a field that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field<'a> {
    /// A number of any size.
    Number(u64),
    /// Text, bytes or a message.
    Bytes(&'a [u8]),
    /// Four or eight bytes, which nothing that is read here has.
    Fixed,
}

/// The fields of a message, up to where it is none.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, count: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(count).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    /// The first field of this number that is a message, or text.
    pub(super) fn bytes(mut self, number: u32) -> Option<&'a [u8]> {
        self.find_map(|found| match found {
            (field, Field::Bytes(bytes)) if field == number => Some(bytes),
            _ => None,
        })
    }

    /// The first field of this number that is a number; 0 if there is none, as in proto3.
    pub(super) fn number(mut self, number: u32) -> u64 {
        let found = self.find_map(|found| match found {
            (field, Field::Number(value)) if field == number => Some(value),
            _ => None,
        });
        found.unwrap_or(0)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, Field<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let tag = self.varint()?;
        let field = u32::try_from(tag >> 3).ok()?;
        let value = match (tag & 7) as u32 {
            VARINT => Field::Number(self.varint()?),
            BYTES => {
                let length = self.varint()?;
                Field::Bytes(self.take(length)?)
            }
            FIXED64 => self.take(8).map(|_| Field::Fixed)?,
            FIXED32 => self.take(4).map(|_| Field::Fixed)?,
            _ => return None,
        };
        Some((field, value))
    }
}

#[cfg(test)]
mod tests {
    use super::{Field, Fields, Message};

    #[test]
    fn wire_format_is_that_of_the_specification() {
        let mut message = Message::default();
        // The examples of the encoding guide of Protocol Buffers.
        message.number(1, 150);
        message.text(2, "testing");
        message.message(3, |inner| inner.number(1, 150));
        message.fixed32(4, 1);
        message.fixed64(16, 1);
        message.packed64(5, [1, 2].into_iter());
        assert_eq!(
            message.0,
            [
                b"\x08\x96\x01\x12\x07testing\x1a\x03\x08\x96\x01".as_slice(),
                b"\x25\x01\0\0\0",
                b"\x81\x01\x01\0\0\0\0\0\0\0",
                b"\x2a\x10\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0",
            ]
            .concat()
        );
    }

    #[test]
    fn long_messages_have_long_lengths() {
        for length in [0, 127, 128, 300, 20_000] {
            let mut message = Message::default();
            message.message(1, |outer| {
                outer.message(2, |inner| inner.text(3, &"x".repeat(length)));
            });
            let inner = Fields(&message.0)
                .bytes(1)
                .and_then(|one| Fields(one).bytes(2));
            let text = inner.and_then(|two| Fields(two).bytes(3)).unwrap();
            assert_eq!(text.len(), length);
        }
    }

    #[test]
    fn what_is_no_message_ends() {
        let fields = |bytes| Fields(bytes).collect::<Vec<_>>();
        assert_eq!(fields(b"\x08\x01\x12\x05abc"), [(1, Field::Number(1))]);
        assert_eq!(
            fields(b"\x25\0\0\0\0\x08\x02"),
            [(4, Field::Fixed), (1, Field::Number(2))]
        );
        assert_eq!(fields(&[0xff; 20]), []);
        assert_eq!(fields(b"\x0b"), []);
        assert_eq!(Fields(b"").number(1), 0);
    }
}
