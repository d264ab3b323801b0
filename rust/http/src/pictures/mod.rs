//! Pictures: what frames of topics become for people who look at them.
//!
//! A [`Source`] is a frame as its publisher wrote it: pixels of a [`PixelFormat`], or a JPEG, PNG or WebP. A viewer asks for it in a
//! [`Setting`] (coding, quality, largest width and height), and [`make`] turns the one into the other:
//!
//! ```text
//! decode (its size is looked at first) -> 8 bits: grey, colour, colour and alpha -> area average -> encode
//! ```
//!
//! What the viewer wants and the frame is already goes out as it is. `make` computes for milliseconds, so it runs on the threads of a
//! [`Pool`]; a [`Cache`] sees to it that a frame is made once for each setting, however many look at it.
//!
//! Nothing here trusts its input: sizes are checked in 64 bits before memory is asked for, coded pictures say their size before they
//! are decoded, and none is larger than the limit (`topics_pixels_max`).

mod cache;
mod convert;
mod decoder;
mod format;
mod jpeg;
mod png;
mod pool;
mod resize;
mod setting;
mod webp;

use std::{borrow::Cow, error::Error as StdError, fmt};

use bytes::Bytes;

pub use cache::{Cache, FrameId};
pub use decoder::Decoder;
pub use format::{Item, PixelFormat};
pub use pool::{Codecs, Pool};
pub use setting::{BadSetting, Coding, Setting};

/// A picture as a frame carries it. Cheap to clone; while one is alive its bytes are kept.
#[derive(Clone, Debug)]
pub enum Source {
    /// Pixels.
    Pixels(Pixels),
    /// A file of that coding.
    Coded(Coding, Bytes),
}

impl Source {
    /// What a viewer with this setting gets without any work, if it is this source itself.
    pub fn as_is(&self, setting: &Setting) -> Option<&Bytes> {
        match self {
            Self::Coded(coding, bytes) if setting.takes(*coding) => Some(bytes),
            _ => None,
        }
    }
}

/// Pixels, row by row without padding.
#[derive(Clone, Debug)]
pub struct Pixels {
    format: PixelFormat,
    width: u32,
    height: u32,
    data: Bytes,
}

impl Pixels {
    /// # Errors
    /// [`PictureError::is_unsupported`] when a side is 0 or longer than 65,500, or `data` has not exactly the bytes that the format
    /// and the size demand.
    pub fn new(
        format: PixelFormat,
        width: u32,
        height: u32,
        data: Bytes,
    ) -> Result<Self, PictureError> {
        if width == 0 || height == 0 || width > SIDE_MAX || height > SIDE_MAX {
            return Err(PictureError::unsupported(format!(
                "{width} x {height} pixels are no picture: sides are 1 to {SIDE_MAX}"
            )));
        }
        let wanted = format.frame_bytes(width, height);
        if wanted != data.len() as u64 {
            return Err(PictureError::unsupported(format!(
                "{width} x {height} pixels of {} have {wanted} bytes, the frame has {}",
                format.name(),
                data.len()
            )));
        }
        Ok(Self {
            format,
            width,
            height,
            data,
        })
    }

    /// How the pixels lie.
    pub fn format(&self) -> PixelFormat {
        self.format
    }

    /// Width and height.
    pub fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// The bytes.
    pub fn data(&self) -> &Bytes {
        &self.data
    }
}

/// The longest side: that of a JPEG for libjpeg-turbo.
const SIDE_MAX: u32 = 65_500;

/// 8 bits each: grey, red green blue, or with alpha behind them; or blue first.
#[derive(Debug)]
struct Flat<'a> {
    width: u32,
    height: u32,
    channels: u8,
    blue_first: bool,
    data: Cow<'a, [u8]>,
}

impl Flat<'_> {
    /// With red first.
    fn red_first(self) -> Self {
        if !self.blue_first {
            return self;
        }
        let mut data = self.data.into_owned();
        for pixel in data.chunks_exact_mut(usize::from(self.channels)) {
            pixel.swap(0, 2);
        }
        Self {
            blue_first: false,
            data: Cow::Owned(data),
            ..self
        }
    }
}

/// Makes what `setting` asks for out of `source`. Takes milliseconds for each million pixels.
///
/// # Errors
/// See the questions of [`PictureError`].
pub fn make(
    codecs: &mut Codecs,
    source: &Source,
    setting: &Setting,
    pixels_max: u64,
) -> Result<Bytes, PictureError> {
    if let Some(bytes) = source.as_is(setting) {
        return Ok(bytes.clone());
    }
    let decoded;
    let pixels = match source {
        Source::Pixels(pixels) => pixels,
        Source::Coded(coding, bytes) => {
            decoded = decode(codecs, *coding, bytes, pixels_max)?;
            &decoded
        }
    };
    check_pixels(pixels.width, pixels.height, pixels_max)?;
    let size = setting.fit(pixels.width, pixels.height);
    if setting.coding == Coding::Png
        && pixels.format == PixelFormat::Values(Item::U16)
        && size == pixels.size()
    {
        return png::encode_16(pixels);
    }
    let flat = convert::flatten(pixels);
    let flat = if size == pixels.size() {
        flat
    } else {
        resize::area_average(&flat, size.0, size.1)
    };
    match setting.coding {
        Coding::Jpeg => codecs.jpeg.encode(&flat, setting.quality),
        Coding::Webp => webp::encode(&flat.red_first(), setting.quality),
        Coding::Png => png::encode(&flat.red_first()),
    }
}

/// Decodes a picture: 8 bits of grey, colour or colour and alpha, or 16 bits of grey.
///
/// # Errors
/// [`PictureError::is_too_large`] before a pixel is decoded; [`PictureError::is_malformed`]; [`PictureError::is_unsupported`].
pub fn decode(
    codecs: &mut Codecs,
    coding: Coding,
    data: &[u8],
    pixels_max: u64,
) -> Result<Pixels, PictureError> {
    match coding {
        Coding::Jpeg => codecs.jpeg.decode(data, pixels_max),
        Coding::Png => png::decode(data, pixels_max),
        Coding::Webp => Err(PictureError::unsupported(
            "frames that are WebP go out as they are: nothing decodes them here".to_owned(),
        )),
    }
}

/// Is a picture of that size within the limit?
fn check_pixels(width: u32, height: u32, pixels_max: u64) -> Result<(), PictureError> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels > pixels_max {
        return Err(PictureError {
            kind: Kind::TooLarge,
            detail: format!(
                "the picture has {width} x {height} = {pixels} pixels, the limit (topics_pixels_max) is {pixels_max}"
            )
            .into(),
        });
    }
    Ok(())
}

/// There is no picture. Cheap to clone: all who wait for one get it.
#[derive(Clone, Debug)]
pub struct PictureError {
    kind: Kind,
    detail: Cow<'static, str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unsupported,
    Malformed,
    TooLarge,
    Busy,
    Internal,
}

impl PictureError {
    fn unsupported(detail: String) -> Self {
        Self {
            kind: Kind::Unsupported,
            detail: detail.into(),
        }
    }

    fn malformed(coding: Coding, cause: &dyn fmt::Display) -> Self {
        Self {
            kind: Kind::Malformed,
            detail: format!("the {} cannot be decoded: {cause}", coding.name()).into(),
        }
    }

    fn internal(detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind: Kind::Internal,
            detail: detail.into(),
        }
    }

    fn busy(detail: &'static str) -> Self {
        Self {
            kind: Kind::Busy,
            detail: detail.into(),
        }
    }

    /// The frame is no picture, or not of a kind that is read here, or not one that the coding can hold.
    pub fn is_unsupported(&self) -> bool {
        self.kind == Kind::Unsupported
    }

    /// The coded picture is broken or cut off.
    pub fn is_malformed(&self) -> bool {
        self.kind == Kind::Malformed
    }

    /// More pixels than the limit.
    pub fn is_too_large(&self) -> bool {
        self.kind == Kind::TooLarge
    }

    /// All is busy: another frame, or a second later.
    pub fn is_busy(&self) -> bool {
        self.kind == Kind::Busy
    }
}

impl fmt::Display for PictureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl StdError for PictureError {}
