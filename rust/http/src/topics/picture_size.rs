//! Width and height of an encoded picture, from the first bytes of its file.
//!
//! Nothing is decoded. A file that says nothing, or nonsense, is published all the same: it is kept as it is.

/// Width and height, if `file` begins as a PNG, JPEG, GIF or WebP that says them. Neither is 0.
pub(crate) fn size(file: &[u8]) -> Option<(u32, u32)> {
    let (width, height) = png(file)
        .or_else(|| gif(file))
        .or_else(|| webp(file))
        .or_else(|| jpeg(file))?;
    (width > 0 && height > 0).then_some((width, height))
}

fn at<const N: usize>(file: &[u8], offset: usize) -> Option<[u8; N]> {
    file.get(offset..)?.first_chunk().copied()
}

/// Portable Network Graphics, section 11.2.1: `IHDR` is the first chunk.
fn png(file: &[u8]) -> Option<(u32, u32)> {
    if !file.starts_with(b"\x89PNG\r\n\x1a\n") || at(file, 12)? != *b"IHDR" {
        return None;
    }
    Some((
        u32::from_be_bytes(at(file, 16)?),
        u32::from_be_bytes(at(file, 20)?),
    ))
}

/// The logical screen of a GIF.
fn gif(file: &[u8]) -> Option<(u32, u32)> {
    if !file.starts_with(b"GIF87a") && !file.starts_with(b"GIF89a") {
        return None;
    }
    Some((
        u16::from_le_bytes(at(file, 6)?).into(),
        u16::from_le_bytes(at(file, 8)?).into(),
    ))
}

/// RFC 9649: the canvas of an extended file, else the head of the one bitstream.
fn webp(file: &[u8]) -> Option<(u32, u32)> {
    if !file.starts_with(b"RIFF") || at(file, 8)? != *b"WEBP" {
        return None;
    }
    match &at(file, 12)? {
        b"VP8X" => {
            let number = |offset| {
                let [low, middle, high] = at(file, offset)?;
                Some(u32::from_le_bytes([low, middle, high, 0]) + 1)
            };
            Some((number(24)?, number(27)?))
        }
        b"VP8L" => {
            let [signature, rest @ ..]: [u8; 5] = at(file, 20)?;
            let bits = u32::from_le_bytes(rest);
            (signature == 0x2f).then_some(((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1))
        }
        // RFC 6386, section 9.1; the upper two bits are scales.
        b"VP8 " if at(file, 23)? == [0x9d, 0x01, 0x2a] => Some((
            u32::from(u16::from_le_bytes(at(file, 26)?) & 0x3fff),
            u32::from(u16::from_le_bytes(at(file, 28)?) & 0x3fff),
        )),
        _ => None,
    }
}

/// ITU T.81, annex B: from marker to marker up to the first start of frame.
fn jpeg(file: &[u8]) -> Option<(u32, u32)> {
    let mut rest = file.strip_prefix(b"\xff\xd8")?;
    loop {
        // Any number of fill bytes may come before a marker.
        rest = rest.strip_prefix(b"\xff")?;
        while let Some(filled) = rest.strip_prefix(b"\xff") {
            rest = filled;
        }
        let (&marker, segment) = rest.split_first()?;
        match marker {
            // Start of frame; C4, C8 and CC mean something else.
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                return Some((
                    u16::from_be_bytes(at(segment, 5)?).into(),
                    u16::from_be_bytes(at(segment, 3)?).into(),
                ));
            }
            // Without a segment.
            0x01 | 0xd0..=0xd7 => rest = segment,
            // The picture itself, or its end.
            0xd9 | 0xda => return None,
            _ => {
                let length = usize::from(u16::from_be_bytes(at(segment, 0)?));
                rest = segment.get(length.max(2)..)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn every_format_says_its_size() {
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
        png.extend([0, 0, 2, 128, 0, 0, 1, 224]);
        assert_eq!(size(&png), Some((640, 480)));
        assert_eq!(size(b"GIF89a\x80\x02\xe0\x01"), Some((640, 480)));
        let webp =
            |kind: &[u8], data: &[u8]| [b"RIFF\0\0\0\0WEBP", kind, b"\0\0\0\0", data].concat();
        let extended = webp(b"VP8X", &[0, 0, 0, 0, 0x7f, 2, 0, 0xdf, 1, 0]);
        assert_eq!(size(&extended), Some((640, 480)));
        let bits = (0x27f_u32 | 0x1df << 14).to_le_bytes();
        let lossless = webp(b"VP8L", &[&[0x2f][..], &bits].concat());
        assert_eq!(size(&lossless), Some((640, 480)));
        let lossy = webp(b"VP8 ", &[0, 0, 0, 0x9d, 1, 0x2a, 0x80, 0x42, 0xe0, 0x81]);
        assert_eq!(size(&lossy), Some((640, 480)));
        let jpeg =
            b"\xff\xd8\xff\xe0\0\x04ab\xff\xff\xc4\0\x03x\xff\xc2\0\x0b\x08\x01\xe0\x02\x80\x03";
        assert_eq!(size(jpeg), Some((640, 480)));
    }

    #[test]
    fn files_that_are_cut_or_lie_say_nothing() {
        let jpeg = b"\xff\xd8\xff\xe0\0\x04ab\xff\xc0\0\x0b\x08\x01\xe0\x02\x80\x03";
        for end in 0..jpeg.len() - 1 {
            assert_eq!(size(&jpeg[..end]), None, "{end}");
        }
        assert_eq!(size(b"\xff\xd8\xff\xe0\0\0\xff\xda"), None);
        assert_eq!(size(b"GIF89a\0\0\xe0\x01"), None);
        assert_eq!(size(b"text"), None);
    }
}
