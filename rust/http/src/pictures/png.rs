//! PNG: for what a JPEG cannot hold, 16 bits and alpha.

use std::io::Cursor;

use bytes::Bytes;
use png::{BitDepth, ColorType, Compression, Decoder, Encoder, Limits, Transformations};

use super::{Coding, Flat, Item, PictureError, PixelFormat, Pixels, check_pixels};

/// 8 bits of grey, colour, or colour and alpha; red comes first.
pub(super) fn encode(flat: &Flat<'_>) -> Result<Bytes, PictureError> {
    let color = match flat.channels {
        1 => ColorType::Grayscale,
        3 => ColorType::Rgb,
        _ => ColorType::Rgba,
    };
    write(flat.width, flat.height, color, BitDepth::Eight, &flat.data)
}

/// 16 bits of grey.
pub(super) fn encode_16(pixels: &Pixels) -> Result<Bytes, PictureError> {
    let mut data = pixels.data().to_vec();
    // A PNG has the high byte first.
    data.as_chunks_mut::<2>()
        .0
        .iter_mut()
        .for_each(|two| two.swap(0, 1));
    let (width, height) = pixels.size();
    write(
        width,
        height,
        ColorType::Grayscale,
        BitDepth::Sixteen,
        &data,
    )
}

fn write(
    width: u32,
    height: u32,
    color: ColorType,
    depth: BitDepth,
    data: &[u8],
) -> Result<Bytes, PictureError> {
    let mut out = Vec::new();
    let mut encoder = Encoder::new(&mut out, width, height);
    encoder.set_color(color);
    encoder.set_depth(depth);
    // Somebody waits for it, and it is looked at once.
    encoder.set_compression(Compression::Fast);
    encoder
        .write_header()
        .and_then(|mut writer| {
            writer.write_image_data(data)?;
            writer.finish()
        })
        .map_err(|error| PictureError::internal(format!("png: {error}")))?;
    Ok(out.into())
}

pub(super) fn decode(data: &[u8], pixels_max: u64) -> Result<Pixels, PictureError> {
    let malformed = |error| PictureError::malformed(Coding::Png, &error);
    // 8 bytes are the largest pixel: 16 bits of colour and alpha.
    let bytes = usize::try_from(pixels_max.saturating_mul(8)).unwrap_or(usize::MAX);
    let mut decoder = Decoder::new_with_limits(Cursor::new(data), Limits { bytes });
    // What is not looked at need not be unpacked.
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let info = decoder.read_header_info().map_err(malformed)?;
    let (width, height) = (info.width, info.height);
    check_pixels(width, height, pixels_max)?;
    let is_deep = info.color_type == ColorType::Grayscale && info.bit_depth == BitDepth::Sixteen;
    decoder.set_transformations(if is_deep {
        Transformations::IDENTITY
    } else {
        Transformations::normalize_to_color8()
    });
    let mut reader = decoder.read_info().map_err(malformed)?;
    let room = reader
        .output_buffer_size()
        .ok_or_else(|| PictureError::malformed(Coding::Png, &"it is larger than memory"))?;
    let mut pixels = vec![0; room];
    let frame = reader.next_frame(&mut pixels).map_err(malformed)?;
    pixels.truncate(frame.buffer_size());
    let (format, pixels) = match (frame.color_type, frame.bit_depth) {
        (ColorType::Grayscale, BitDepth::Sixteen) if is_deep => {
            pixels
                .as_chunks_mut::<2>()
                .0
                .iter_mut()
                .for_each(|two| two.swap(0, 1));
            (PixelFormat::Values(Item::U16), pixels)
        }
        (ColorType::Grayscale, BitDepth::Eight) => (PixelFormat::Mono8, pixels),
        (ColorType::Rgb, BitDepth::Eight) => (PixelFormat::Rgb8, pixels),
        (ColorType::Rgba, BitDepth::Eight) => (PixelFormat::Rgba8, pixels),
        (ColorType::GrayscaleAlpha, BitDepth::Eight) => (
            PixelFormat::Rgba8,
            pixels
                .as_chunks::<2>()
                .0
                .iter()
                .flat_map(|&[grey, alpha]| [grey, grey, grey, alpha])
                .collect(),
        ),
        (color, depth) => {
            return Err(PictureError::unsupported(format!(
                "a PNG of {color:?}, {depth:?} bits, is not decoded"
            )));
        }
    };
    Pixels::new(format, width, height, pixels.into())
}
