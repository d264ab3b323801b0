//! Files of numpy: the head of one as dtype and shape, and back.
//!
//! ```text
//! \x93NUMPY  major minor  length (2 bytes in 1.0, 4 in 2.0 and 3.0, little-endian)  length bytes of text:
//! {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }  spaces  \n
//! ```
//!
//! The text is a Python literal; what is read of it is one dictionary of these three keys, and nothing else. Refused are
//! objects (they would be pickles), structured types, strings and times, big-endian items and Fortran's order: those would
//! have to be converted, and what comes in is published as it is. Products of lengths are checked by [`ArrayHead`].

use super::head::{ArrayHead, DIMENSIONS_MAX, Dtype};
use super::problem::{Code, Problem};
use super::publish::problem_of;
use crate::ingest::Source;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Magic, version and the longer form of the length.
const BEGIN_BYTES: usize = 12;
/// Bytes of the text. numpy's own is 118 for a plain array; its reader takes 10,000.
const TEXT_BYTES_MAX: usize = 10_000;
/// The payload of a file begins at a multiple of this.
const ALIGNMENT: usize = 64;

/// Reads the head of a file from `source`; what is left of that are the items.
///
/// # Errors
/// [`Code::Npy`] if it is no such file or not one that can be a frame, [`Code::BodyIncomplete`].
pub(super) async fn read(source: &mut impl Source) -> Result<ArrayHead, Problem> {
    let mut begin = [0; BEGIN_BYTES];
    // The shortest form first: a text of version 1.0 may follow at once.
    read_exact(source, &mut begin[..10]).await?;
    let text_bytes = if long_length(&begin)? {
        read_exact(source, &mut begin[10..]).await?;
        u32::from_le_bytes([begin[8], begin[9], begin[10], begin[11]]) as usize
    } else {
        usize::from(u16::from_le_bytes([begin[8], begin[9]]))
    };
    if text_bytes > TEXT_BYTES_MAX {
        return Err(refused("its head is too long"));
    }
    let mut text = vec![0; text_bytes];
    read_exact(source, &mut text).await?;
    parse(&text)
}

async fn read_exact(source: &mut impl Source, mut into: &mut [u8]) -> Result<(), Problem> {
    while !into.is_empty() {
        let read = source.read(into).await;
        match read.map_err(|error| problem_of(&error))? {
            0 => return Err(refused("it ends in its head")),
            bytes => into = &mut into[bytes..],
        }
    }
    Ok(())
}

fn refused(reason: &str) -> Problem {
    Problem::new(Code::Npy, format!("the .npy file is refused: {reason}"))
}

/// Whether the length has four bytes.
fn long_length(begin: &[u8]) -> Result<bool, Problem> {
    match begin.strip_prefix(MAGIC) {
        None => Err(refused("it does not begin as one")),
        Some([1, 0, ..]) => Ok(false),
        Some([2 | 3, 0, ..]) => Ok(true),
        Some(_) => Err(refused("its version is none of 1.0, 2.0 and 3.0")),
    }
}

/// Reads the text of a head.
pub(crate) fn parse(text: &[u8]) -> Result<ArrayHead, Problem> {
    let mut reader = Reader(text);
    let (mut descr, mut order, mut shape) = (None, None, None);
    let wrong = || refused("its head is no dictionary of descr, fortran_order and shape");
    reader.expect(b'{').ok_or_else(wrong)?;
    while reader.expect(b'}').is_none() {
        let key = reader.string().ok_or_else(wrong)?;
        reader.expect(b':').ok_or_else(wrong)?;
        let is_new = match key {
            b"descr" => {
                let Some(value) = reader.string() else {
                    return Err(refused("its items are records"));
                };
                descr.replace(value).is_none()
            }
            b"fortran_order" => order.replace(reader.boolean().ok_or_else(wrong)?).is_none(),
            b"shape" => shape.replace(reader.shape().ok_or_else(wrong)?).is_none(),
            _ => false,
        };
        if !is_new {
            return Err(wrong());
        }
        if reader.expect(b',').is_none() {
            reader.expect(b'}').ok_or_else(wrong)?;
            break;
        }
    }
    reader.skip();
    let (Some(descr), Some(is_fortran), Some(shape), true) =
        (descr, order, shape, reader.0.is_empty())
    else {
        return Err(wrong());
    };
    // One dimension is the same either way.
    if is_fortran && shape.len() > 1 {
        return Err(refused("its items are in Fortran's order"));
    }
    let dtype = dtype_of(descr).ok_or_else(|| {
        refused("its items are objects, text, times or big-endian, which no frame holds")
    })?;
    ArrayHead::new(dtype, shape).ok_or_else(|| refused("it is larger than any memory"))
}

/// Types whose bytes are the same here and there.
const DESCRS: [(&[u8], Dtype); 14] = [
    (b"|b1", Dtype::Bool),
    (b"|i1", Dtype::Int8),
    (b"<i2", Dtype::Int16),
    (b"<i4", Dtype::Int32),
    (b"<i8", Dtype::Int64),
    (b"|u1", Dtype::Uint8),
    (b"<u2", Dtype::Uint16),
    (b"<u4", Dtype::Uint32),
    (b"<u8", Dtype::Uint64),
    (b"<f2", Dtype::Float16),
    (b"<f4", Dtype::Float32),
    (b"<f8", Dtype::Float64),
    (b"<c8", Dtype::Complex64),
    (b"<c16", Dtype::Complex128),
];

fn dtype_of(descr: &[u8]) -> Option<Dtype> {
    let (order, kind) = descr.split_first()?;
    DESCRS
        .iter()
        .find(|(known, _)| {
            let is_byte = known[0] == b'|';
            // Bytes have no order; some writers give them one all the same.
            &known[1..] == kind && (*order == known[0] || is_byte && *order == b'<')
        })
        .map(|(_, dtype)| *dtype)
}

/// Head of a file with one array; `None` for a dtype that numpy does not have.
pub(crate) fn write(array: &ArrayHead) -> Option<Vec<u8>> {
    let (descr, _) = DESCRS.iter().find(|(_, dtype)| *dtype == array.dtype())?;
    let lengths: Vec<String> = array.shape().iter().map(u64::to_string).collect();
    let comma = if lengths.len() == 1 { "," } else { "" };
    let mut text = format!(
        "{{'descr': '{}', 'fortran_order': False, 'shape': ({}{comma}), }}",
        String::from_utf8_lossy(descr),
        lengths.join(", ")
    )
    .into_bytes();
    let begin = MAGIC.len() + 4;
    let whole = (begin + text.len() + 1).next_multiple_of(ALIGNMENT);
    text.resize(whole - begin - 1, b' ');
    text.push(b'\n');
    let mut file = Vec::with_capacity(whole);
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&[1, 0]);
    // At most 8 lengths of 20 digits.
    file.extend_from_slice(&(text.len() as u16).to_le_bytes());
    file.extend_from_slice(&text);
    Some(file)
}

/// What is left of a text.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn skip(&mut self) {
        self.0 = self.0.trim_ascii_start();
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.skip();
        self.0 = self.0.strip_prefix(&[byte])?;
        Some(())
    }

    /// A string without escapes; none of ours has any.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.skip();
        let (&quote, rest) = self.0.split_first()?;
        if quote != b'\'' && quote != b'"' {
            return None;
        }
        let end = memchr::memchr(quote, rest)?;
        let (text, rest) = rest.split_at(end);
        if text.contains(&b'\\') {
            return None;
        }
        self.0 = &rest[1..];
        Some(text)
    }

    fn boolean(&mut self) -> Option<bool> {
        self.skip();
        for (word, value) in [(&b"False"[..], false), (b"True", true)] {
            if let Some(rest) = self.0.strip_prefix(word) {
                self.0 = rest;
                return Some(value);
            }
        }
        None
    }

    /// `()`, `(3,)`, `(3, 4)`; Python 2 wrote `3L`.
    fn shape(&mut self) -> Option<Vec<u64>> {
        self.expect(b'(')?;
        let mut lengths = Vec::new();
        loop {
            if self.expect(b')').is_some() {
                return Some(lengths);
            }
            let digits = self.0.iter().take_while(|byte| byte.is_ascii_digit());
            let (digits, rest) = self.0.split_at(digits.count());
            let length = std::str::from_utf8(digits).ok()?.parse().ok()?;
            if lengths.len() == DIMENSIONS_MAX {
                return None;
            }
            lengths.push(length);
            self.0 = rest.strip_prefix(b"L").unwrap_or(rest);
            if self.expect(b',').is_none() {
                self.expect(b')')?;
                return Some(lengths);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ALIGNMENT, parse, write};
    use crate::topics::{ArrayHead, Dtype};

    #[test]
    fn what_is_written_is_read_again() {
        for dtype in Dtype::ALL {
            for shape in [vec![], vec![7], vec![2, 3], vec![1, 2, 3, 4, 5, 6, 7, 8]] {
                let array = ArrayHead::new(dtype, shape).unwrap();
                let Some(file) = write(&array) else {
                    assert_eq!(dtype, Dtype::Bfloat16);
                    continue;
                };
                assert!(file.len().is_multiple_of(ALIGNMENT));
                assert_eq!(&file[..8], b"\x93NUMPY\x01\x00");
                assert_eq!(parse(&file[10..]), Ok(array));
            }
        }
    }

    #[test]
    fn heads_that_other_writers_make_are_read() {
        for text in [
            "{'shape': (2, 3), 'fortran_order': False, 'descr': '<f4'}",
            "{\"descr\":\"<f4\",\"fortran_order\":False,\"shape\":(2,3,),}   \n",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 3L), }\n",
        ] {
            let array = parse(text.as_bytes()).expect(text);
            assert_eq!(
                (array.dtype(), array.shape()),
                (Dtype::Float32, &[2, 3][..])
            );
        }
        let flat = "{'descr': '<u1', 'fortran_order': True, 'shape': (5,), }";
        assert_eq!(parse(flat.as_bytes()).unwrap().shape(), [5]);
    }

    #[test]
    fn what_cannot_be_a_frame_is_refused() {
        for text in [
            "",
            "{}",
            "[]",
            "{'descr': '|O', 'fortran_order': False, 'shape': (2,), }",
            "{'descr': '>f4', 'fortran_order': False, 'shape': (2,), }",
            "{'descr': '<U4', 'fortran_order': False, 'shape': (2,), }",
            "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }",
            "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }",
            "{'descr': '<f4', 'fortran_order': 0, 'shape': (2, 3), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-2, 3), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'x': 1}",
            "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), } x",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)",
            "{'descr': '<f4', 'fortran_order': False}",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
