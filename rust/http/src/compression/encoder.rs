//! The codecs behind one face: bytes in, bytes out, and a flush that brings out all that went in.
//!
//! gzip is zlib-rs, as for the messages of a `WebSocket`, with the head and the tail of RFC 1952 around it; zstd and brotli are
//! the crates `zstd` and `brotli`. (`async-compression` would join them as well, but its readers neither flush when the source pauses
//! nor bound the window.) Windows are bounded, because every response that is under way has one: 32 KiB (gzip), 128 KiB
//! (zstd) and 256 KiB (brotli), a few times that with their tables. Larger ones gain on responses of megabytes only.

use std::{
    io::{self, Write},
    mem,
};

use brotli::{CompressorWriter, enc::BrotliEncoderParams};
use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Status, crc32::crc32};
use zstd::{stream::write, zstd_safe::CParameter};

use super::Level;
use crate::accept_encoding::Coding;

const ZSTD_WINDOW_BITS: u32 = 17;
const BROTLI_WINDOW_BITS: i32 = 18;
/// Room that is made at a time.
const ROOM_BYTES: usize = 16 * 1024;
/// No time, no name, no flags, unknown system (RFC 1952, 2.3).
const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// Compresses one body.
pub(super) enum Encoder {
    Gzip(Box<Gzip>),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Zstd(Box<write::Encoder<'static, Vec<u8>>>),
}

impl Encoder {
    pub(super) fn new(coding: Coding, level: Level) -> io::Result<Self> {
        Ok(match coding {
            Coding::Gzip => Self::Gzip(Box::new(Gzip::new(match level {
                Level::Fast => 1,
                Level::Balanced => 5,
                Level::Small => 9,
            }))),
            Coding::Brotli => {
                let parameters = BrotliEncoderParams {
                    quality: match level {
                        Level::Fast => 1,
                        Level::Balanced => 4,
                        Level::Small => 8,
                    },
                    lgwin: BROTLI_WINDOW_BITS,
                    ..BrotliEncoderParams::default()
                };
                let writer = CompressorWriter::with_params(Vec::new(), 4096, &parameters);
                Self::Brotli(Box::new(writer))
            }
            Coding::Zstd => {
                let mut encoder = write::Encoder::new(
                    Vec::new(),
                    match level {
                        Level::Fast => 1,
                        Level::Balanced => 3,
                        Level::Small => 9,
                    },
                )?;
                encoder.set_parameter(CParameter::WindowLog(ZSTD_WINDOW_BITS))?;
                Self::Zstd(Box::new(encoder))
            }
        })
    }

    /// Takes bytes; some of them may come out at once.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(gzip) => gzip.run(bytes, DeflateFlush::NoFlush),
            Self::Brotli(brotli) => brotli.write_all(bytes),
            Self::Zstd(zstd) => zstd.write_all(bytes),
        }
    }

    /// Brings out what went in.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(gzip) => gzip.run(&[], DeflateFlush::SyncFlush),
            Self::Brotli(brotli) => brotli.flush(),
            Self::Zstd(zstd) => zstd.flush(),
        }
    }

    /// What came out.
    pub(super) fn take(&mut self) -> Vec<u8> {
        mem::take(match self {
            Self::Gzip(gzip) => &mut gzip.out,
            Self::Brotli(brotli) => brotli.get_mut(),
            Self::Zstd(zstd) => zstd.get_mut(),
        })
    }

    /// How much came out and was not taken.
    pub(super) fn made(&self) -> usize {
        match self {
            Self::Gzip(gzip) => gzip.out.len(),
            Self::Brotli(brotli) => brotli.get_ref().len(),
            Self::Zstd(zstd) => zstd.get_ref().len(),
        }
    }

    /// The rest.
    pub(super) fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(gzip) => gzip.finish(),
            Self::Brotli(brotli) => Ok(brotli.into_inner()),
            Self::Zstd(zstd) => zstd.finish(),
        }
    }
}

/// A member of RFC 1952.
pub(super) struct Gzip {
    state: Deflate,
    out: Vec<u8>,
    checksum: u32,
}

impl Gzip {
    fn new(level: i32) -> Self {
        Self {
            state: Deflate::new_with_config(DeflateConfig {
                level,
                // Negative: without zlib's own head.
                window_bits: -15,
                ..DeflateConfig::default()
            }),
            out: GZIP_HEAD.to_vec(),
            checksum: 0,
        }
    }

    fn run(&mut self, mut bytes: &[u8], flush: DeflateFlush) -> io::Result<()> {
        self.checksum = crc32(self.checksum, bytes);
        loop {
            let begin = self.out.len();
            self.out.resize(begin + ROOM_BYTES, 0);
            let (taken, made) = (self.state.total_in(), self.state.total_out());
            let status = self.state.compress(bytes, &mut self.out[begin..], flush);
            let taken = usize::try_from(self.state.total_in() - taken).unwrap_or(0);
            let made = usize::try_from(self.state.total_out() - made).unwrap_or(0);
            self.out.truncate(begin + made);
            bytes = &bytes[taken..];
            match status {
                Ok(Status::StreamEnd) => return Ok(()),
                // With room left, all has come out.
                Ok(_) if bytes.is_empty() && made < ROOM_BYTES => return Ok(()),
                Ok(_) if taken > 0 || made > 0 => {}
                // Nothing to do: it was flushed before.
                Ok(_) => return Ok(()),
                Err(error) => return Err(io::Error::other(error.as_str())),
            }
        }
    }

    fn finish(mut self) -> io::Result<Vec<u8>> {
        self.run(&[], DeflateFlush::Finish)?;
        self.out.extend_from_slice(&self.checksum.to_le_bytes());
        // Of the size, the lower 32 bits.
        let size = self.state.total_in() as u32;
        self.out.extend_from_slice(&size.to_le_bytes());
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use zlib_rs::{Inflate, InflateFlush};

    use super::{Encoder, GZIP_HEAD};
    use crate::accept_encoding::Coding;
    use crate::compression::Level;

    fn decoded(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        match coding {
            Coding::Zstd => drop(zstd::Decoder::new(bytes).unwrap().read_to_end(&mut plain)),
            Coding::Brotli => {
                drop(brotli::Decompressor::new(bytes, 4096).read_to_end(&mut plain));
            }
            Coding::Gzip => {
                let mut state = Inflate::new(false, 15);
                plain.resize(4_000_000, 0);
                let deflated = bytes.strip_prefix(&GZIP_HEAD[..]).unwrap();
                let _ = state.decompress(deflated, &mut plain, InflateFlush::SyncFlush);
                plain.truncate(usize::try_from(state.total_out()).unwrap());
            }
        }
        plain
    }

    #[test]
    fn what_went_in_is_out_after_each_flush() {
        let noise: Vec<u8> = (0..200_000_u64)
            .map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
            .collect();
        let text = b"all work and no play ".repeat(9000);
        for coding in Coding::ALL {
            for level in [Level::Fast, Level::Balanced, Level::Small] {
                let mut encoder = Encoder::new(coding, level).unwrap();
                let (mut wire, mut plain) = (Vec::new(), Vec::new());
                for piece in [&b"a"[..], b"", b"some text", &noise, &text, b"!"] {
                    encoder.write(piece).unwrap();
                    plain.extend_from_slice(piece);
                    encoder.flush().unwrap();
                    assert!(encoder.made() > 0 || piece.is_empty());
                    wire.extend(encoder.take());
                    assert!(decoded(coding, &wire) == plain, "{coding:?}");
                    // A second flush brings nothing, or nothing that matters.
                    encoder.flush().unwrap();
                }
                wire.extend(encoder.finish().unwrap());
                assert!(decoded(coding, &wire) == plain, "{coding:?}");
                assert!(wire.len() < plain.len() * 2 / 3);
            }
        }
    }

    #[test]
    fn empty_bodies() {
        for coding in Coding::ALL {
            let encoder = Encoder::new(coding, Level::Balanced).unwrap();
            assert_eq!(decoded(coding, &encoder.finish().unwrap()), b"");
        }
    }
}
