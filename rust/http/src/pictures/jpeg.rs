//! JPEG through libjpeg-turbo, whose vector code makes it three to six times faster than what is written in Rust.
//!
//! A build without that code fails (`docs/decisions/0006-pictures.md`).

use bytes::Bytes;
use memchr::memmem;
use turbojpeg::{Colorspace, Compressor, Decompressor, Image, Subsamp};

use super::{Coding, Flat, PictureError, PixelFormat, Pixels, check_pixels};

/// From this quality on colours have the resolution of the picture; below it half of it in both directions, as cameras do it.
const FULL_COLOUR_QUALITY: u8 = 90;
/// Passes over the picture that a progressive JPEG may take. Encoders write about 10; each costs as much as a whole picture, and next
/// to nothing to who sends it.
const SCANS_MAX: usize = 32;
/// Start of scan.
const SCAN_MARKER: [u8; 2] = [0xff, 0xda];

/// Encoder and decoder of one thread; made when they are needed.
#[derive(Default)]
pub(super) struct Jpeg {
    compressor: Option<Compressor>,
    decompressor: Option<Decompressor>,
}

impl Jpeg {
    /// Encodes a picture.
    pub(super) fn encode(&mut self, flat: &Flat<'_>, quality: u8) -> Result<Bytes, PictureError> {
        let compressor = match &mut self.compressor {
            Some(compressor) => compressor,
            none => none.insert(Compressor::new().map_err(|error| failed(&error))?),
        };
        let format = match (flat.channels, flat.blue_first) {
            (1, _) => turbojpeg::PixelFormat::GRAY,
            (3, false) => turbojpeg::PixelFormat::RGB,
            (3, true) => turbojpeg::PixelFormat::BGR,
            // There is no alpha in a JPEG.
            (_, false) => turbojpeg::PixelFormat::RGBX,
            (_, true) => turbojpeg::PixelFormat::BGRX,
        };
        let subsampling = match flat.channels {
            1 => Subsamp::Gray,
            _ if quality >= FULL_COLOUR_QUALITY => Subsamp::None,
            _ => Subsamp::Sub2x2,
        };
        let image = Image {
            pixels: &flat.data[..],
            width: flat.width as usize,
            pitch: flat.width as usize * usize::from(flat.channels),
            height: flat.height as usize,
            format,
        };
        let made = compressor
            .set_quality(i32::from(quality))
            .and_then(|()| compressor.set_subsamp(subsampling))
            .and_then(|()| compressor.compress_to_vec(image))
            .map(Bytes::from)
            .map_err(|error| failed(&error));
        if made.is_err() {
            self.compressor = None;
        }
        made
    }

    /// Decodes a picture.
    pub(super) fn decode(&mut self, data: &[u8], pixels_max: u64) -> Result<Pixels, PictureError> {
        let decoded = self.try_decode(data, pixels_max);
        if decoded.is_err() {
            // After a broken picture libjpeg-turbo may refuse a good one ("SOS before SOF"); fuzzing found it.
            self.decompressor = None;
        }
        decoded
    }

    fn try_decode(&mut self, data: &[u8], pixels_max: u64) -> Result<Pixels, PictureError> {
        let decompressor = match &mut self.decompressor {
            Some(decompressor) => decompressor,
            none => none.insert(Decompressor::new().map_err(|error| failed(&error))?),
        };
        let malformed = |error| PictureError::malformed(Coding::Jpeg, &error);
        let header = decompressor.read_header(data).map_err(malformed)?;
        let (width, height) = (header.width as u32, header.height as u32);
        check_pixels(width, height, pixels_max)?;
        let (format, ours) = match header.colorspace {
            Colorspace::Gray => (turbojpeg::PixelFormat::GRAY, PixelFormat::Mono8),
            Colorspace::YCbCr | Colorspace::RGB => (turbojpeg::PixelFormat::RGB, PixelFormat::Rgb8),
            Colorspace::CMYK | Colorspace::YCCK => {
                return Err(PictureError::unsupported(
                    "JPEGs of the colours of ink (CMYK) are not decoded".to_owned(),
                ));
            }
        };
        if memmem::find_iter(data, &SCAN_MARKER)
            .nth(SCANS_MAX)
            .is_some()
        {
            let cause = format!("it has more than {SCANS_MAX} scans");
            return Err(PictureError::malformed(Coding::Jpeg, &cause));
        }
        let pitch = header.width * format.size();
        let mut pixels = vec![0; pitch * header.height];
        let image = Image {
            pixels: &mut pixels[..],
            width: header.width,
            pitch,
            height: header.height,
            format,
        };
        decompressor.decompress(data, image).map_err(malformed)?;
        Pixels::new(ours, width, height, pixels.into())
    }
}

fn failed(error: &turbojpeg::Error) -> PictureError {
    PictureError::internal(format!("libjpeg-turbo: {error}"))
}
