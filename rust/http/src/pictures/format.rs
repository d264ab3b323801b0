//! How pixels lie in a frame: the names of ROS and Foxglove, and what arrays without a name are.

/// How the pixels of a picture lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names of ROS say it")]
pub enum PixelFormat {
    Mono8,
    Rgb8,
    Bgr8,
    Rgba8,
    Bgra8,
    Uyvy,
    Yuyv,
    /// One colour for each pixel; which, for the first four: top left, top right, bottom left, bottom right.
    Bayer([Colour; 4]),
    /// One number for each pixel, of which the smallest is shown black and the largest white.
    Values(Item),
}

/// A colour of a Bayer pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Colour {
    Red = 0,
    Green = 1,
    Blue = 2,
}

/// What numbers of a picture of numbers are; little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Item {
    U16,
    I16,
    U32,
    I32,
    F16,
    F32,
    F64,
}

use Colour::{Blue, Green, Red};

/// Name, format, and numpy's name and channels of the arrays that it fits. The first of several names is the one that is said.
const NAMES: [(&str, PixelFormat, &str, u64); 26] = [
    ("mono8", PixelFormat::Mono8, "uint8", 1),
    ("rgb8", PixelFormat::Rgb8, "uint8", 3),
    ("rgba8", PixelFormat::Rgba8, "uint8", 4),
    ("mono16", PixelFormat::Values(Item::U16), "uint16", 1),
    ("16SC1", PixelFormat::Values(Item::I16), "int16", 1),
    ("32UC1", PixelFormat::Values(Item::U32), "uint32", 1),
    ("32SC1", PixelFormat::Values(Item::I32), "int32", 1),
    ("16FC1", PixelFormat::Values(Item::F16), "float16", 1),
    ("32FC1", PixelFormat::Values(Item::F32), "float32", 1),
    ("64FC1", PixelFormat::Values(Item::F64), "float64", 1),
    // Above: what an array without a name is. Below: only by name.
    ("bgr8", PixelFormat::Bgr8, "uint8", 3),
    ("bgra8", PixelFormat::Bgra8, "uint8", 4),
    ("8UC1", PixelFormat::Mono8, "uint8", 1),
    ("8UC3", PixelFormat::Bgr8, "uint8", 3),
    ("8UC4", PixelFormat::Bgra8, "uint8", 4),
    ("16UC1", PixelFormat::Values(Item::U16), "uint16", 1),
    ("uyvy", PixelFormat::Uyvy, "uint8", 2),
    ("yuv422", PixelFormat::Uyvy, "uint8", 2),
    ("yuyv", PixelFormat::Yuyv, "uint8", 2),
    ("yuv422_yuy2", PixelFormat::Yuyv, "uint8", 2),
    (
        "bayer_rggb8",
        PixelFormat::Bayer([Red, Green, Green, Blue]),
        "uint8",
        1,
    ),
    (
        "bayer_bggr8",
        PixelFormat::Bayer([Blue, Green, Green, Red]),
        "uint8",
        1,
    ),
    (
        "bayer_gbrg8",
        PixelFormat::Bayer([Green, Blue, Red, Green]),
        "uint8",
        1,
    ),
    (
        "bayer_grbg8",
        PixelFormat::Bayer([Green, Red, Blue, Green]),
        "uint8",
        1,
    ),
    ("rgb", PixelFormat::Rgb8, "uint8", 3),
    ("bgr", PixelFormat::Bgr8, "uint8", 3),
];
/// So many rows of [`NAMES`] say what an array without a name is.
const USUAL: usize = 10;

impl PixelFormat {
    /// The format of a name such as `bgr8`, `16UC1` or `bayer_rggb8`.
    pub fn from_name(name: &str) -> Option<Self> {
        let row = NAMES.iter().find(|row| row.0 == name)?;
        Some(row.1)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        let row = NAMES.iter().find(|row| row.1 == self);
        row.map_or("unknown", |row| row.0)
    }

    /// What a picture is that lies in an array: format, width and height. `dtype` is numpy's name (`uint8`); `shape` is (height, width) or
    /// (height, width, channels); `named` is what the publisher says of it. `None`: it is no picture.
    pub fn of_array(dtype: &str, shape: &[u64], named: Option<&str>) -> Option<(Self, u32, u32)> {
        let (height, width, channels) = match *shape {
            [height, width] => (height, width, 1),
            [height, width, channels] => (height, width, channels),
            _ => return None,
        };
        let fits = |row: &&(&str, Self, &str, u64)| row.2 == dtype && row.3 == channels;
        let row = named
            .and_then(|name| NAMES.iter().find(|row| row.0 == name && fits(row)))
            .or_else(|| NAMES[..USUAL].iter().find(fits))?;
        Some((
            row.1,
            u32::try_from(width).ok()?,
            u32::try_from(height).ok()?,
        ))
    }

    /// Bytes of one pixel; of a pair of them half.
    pub fn pixel_bytes(self) -> u64 {
        match self {
            Self::Mono8 | Self::Bayer(_) => 1,
            Self::Uyvy | Self::Yuyv => 2,
            Self::Rgb8 | Self::Bgr8 => 3,
            Self::Rgba8 | Self::Bgra8 => 4,
            Self::Values(item) => item.bytes() as u64,
        }
    }

    /// Bytes of a frame.
    pub fn frame_bytes(self, width: u32, height: u32) -> u64 {
        // Sides are below 2^32 and pixels have 8 bytes at most: saturation is no picture that fits into memory.
        (u64::from(width) * u64::from(height)).saturating_mul(self.pixel_bytes())
    }
}

impl Item {
    /// Bytes of one number.
    pub fn bytes(self) -> usize {
        match self {
            Self::U16 | Self::I16 | Self::F16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Item, NAMES, PixelFormat};

    #[test]
    fn names_are_unique_and_lead_back() {
        for (at, (name, format, ..)) in NAMES.iter().enumerate() {
            assert_eq!(PixelFormat::from_name(name), Some(*format));
            assert!(NAMES[..at].iter().all(|row| row.0 != *name), "{name}");
            let said = PixelFormat::from_name(format.name());
            assert_eq!(said, Some(*format), "{name}");
        }
        assert_eq!(PixelFormat::from_name("rgb9"), None);
    }

    #[test]
    fn arrays_are_what_their_publisher_says_where_that_fits() {
        let of = |dtype, shape: &[u64], named| {
            PixelFormat::of_array(dtype, shape, named).map(|(format, ..)| format)
        };
        assert_eq!(of("uint8", &[4, 6], None), Some(PixelFormat::Mono8));
        assert_eq!(of("uint8", &[4, 6, 1], None), Some(PixelFormat::Mono8));
        assert_eq!(of("uint8", &[4, 6, 3], None), Some(PixelFormat::Rgb8));
        assert_eq!(
            of("uint8", &[4, 6, 3], Some("bgr8")),
            Some(PixelFormat::Bgr8)
        );
        assert_eq!(
            of("uint8", &[4, 6, 4], Some("bgr8")),
            Some(PixelFormat::Rgba8)
        );
        assert_eq!(
            of("uint8", &[4, 6, 2], Some("yuyv")),
            Some(PixelFormat::Yuyv)
        );
        assert_eq!(of("uint8", &[4, 6, 2], None), None);
        assert_eq!(
            of("float32", &[4, 6], None),
            Some(PixelFormat::Values(Item::F32))
        );
        for no_picture in [&[4][..], &[], &[4, 6, 5], &[1, 4, 6, 3]] {
            assert_eq!(of("uint8", no_picture, None), None, "{no_picture:?}");
        }
        assert_eq!(of("complex64", &[4, 6], None), None);
        assert_eq!(of("uint8", &[1 << 32, 6], None), None);
        assert_eq!(
            PixelFormat::of_array("uint8", &[4, 6, 3], None),
            Some((PixelFormat::Rgb8, 6, 4))
        );
    }
}
