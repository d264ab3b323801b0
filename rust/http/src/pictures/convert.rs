//! Pixels of any format to 8 bits of grey, colour, or colour and alpha.
//!
//! - YUV is that of cameras: BT.601 with luma of 16 to 235, as `OpenCV` and ROS read it.
//! - A Bayer pattern gives each block of 2 x 2 pixels the colours that were measured in it: sharp enough to look at, and as cheap as
//!   it gets.
//! - Numbers are shown between the smallest (black) and the largest (white) of the frame. What is not finite is black, and does not
//!   count.

#![expect(
    clippy::cast_sign_loss,
    reason = "what is narrowed was clamped, or is between 0 and 255.5"
)]

use std::borrow::Cow;

use super::{
    Flat, Pixels,
    format::{Colour, Item, PixelFormat},
};

/// The same picture in 8 bits; borrowed where it lies so already.
pub(super) fn flatten(pixels: &Pixels) -> Flat<'_> {
    let data = &pixels.data[..];
    let (channels, blue_first, data) = match pixels.format {
        PixelFormat::Mono8 => (1, false, Cow::Borrowed(data)),
        PixelFormat::Rgb8 => (3, false, Cow::Borrowed(data)),
        PixelFormat::Bgr8 => (3, true, Cow::Borrowed(data)),
        PixelFormat::Rgba8 => (4, false, Cow::Borrowed(data)),
        PixelFormat::Bgra8 => (4, true, Cow::Borrowed(data)),
        PixelFormat::Uyvy => (3, false, Cow::Owned(yuv(pixels, [1, 0, 3, 2]))),
        PixelFormat::Yuyv => (3, false, Cow::Owned(yuv(pixels, [0, 1, 2, 3]))),
        PixelFormat::Bayer(pattern) => (3, false, Cow::Owned(bayer(pixels, pattern))),
        PixelFormat::Values(item) => (1, false, Cow::Owned(levels(data, item))),
    };
    Flat {
        width: pixels.width,
        height: pixels.height,
        channels,
        blue_first,
        data,
    }
}

/// Two pixels lie in four bytes; `places` says where the first luma, U, the second luma and V are. An odd last column has the colour
/// of the pair before it, or none if there is none.
fn yuv(pixels: &Pixels, places: [usize; 4]) -> Vec<u8> {
    let width = pixels.width as usize;
    let mut out = Vec::with_capacity(width * pixels.height as usize * 3);
    for row in pixels.data.chunks_exact(width * 2) {
        let (mut u, mut v) = (128, 128);
        for pair in row.chunks(4) {
            if let &[_, _, _, _] = pair {
                (u, v) = (i32::from(pair[places[1]]), i32::from(pair[places[3]]));
                out.extend_from_slice(&rgb_of(i32::from(pair[places[0]]), u, v));
                out.extend_from_slice(&rgb_of(i32::from(pair[places[2]]), u, v));
            } else {
                out.extend_from_slice(&rgb_of(i32::from(pair[places[0]]), u, v));
            }
        }
    }
    out
}

/// BT.601, in 256ths.
fn rgb_of(y: i32, u: i32, v: i32) -> [u8; 3] {
    let (y, u, v) = (298 * (y - 16) + 128, u - 128, v - 128);
    [y + 409 * v, y - 100 * u - 208 * v, y + 516 * u].map(|value| (value >> 8).clamp(0, 255) as u8)
}

fn bayer(pixels: &Pixels, pattern: [Colour; 4]) -> Vec<u8> {
    let (width, height) = (pixels.width as usize, pixels.height as usize);
    let mut out = vec![0; width * height * 3];
    for top in (0..height).step_by(2) {
        for left in (0..width).step_by(2) {
            // At an odd edge the block before it is looked at, which has all three colours, if there is one.
            let (y, x) = (
                top.min(height.saturating_sub(2)),
                left.min(width.saturating_sub(2)),
            );
            let (mut sums, mut counts) = ([0u16; 3], [0u16; 3]);
            for (down, right) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let (y, x) = ((y + down).min(height - 1), (x + right).min(width - 1));
                // Its place in the pattern is that in the whole picture.
                let colour = pattern[(y % 2) * 2 + x % 2] as usize;
                sums[colour] += u16::from(pixels.data[y * width + x]);
                counts[colour] += 1;
            }
            let block = [0, 1, 2].map(|colour| (sums[colour] / counts[colour].max(1)) as u8);
            for y in top..(top + 2).min(height) {
                for x in left..(left + 2).min(width) {
                    out[(y * width + x) * 3..][..3].copy_from_slice(&block);
                }
            }
        }
    }
    out
}

fn levels(data: &[u8], item: Item) -> Vec<u8> {
    fn spread<const N: usize>(data: &[u8], value: impl Fn([u8; N]) -> f64) -> Vec<u8> {
        let numbers = || data.as_chunks::<N>().0.iter().map(|bytes| value(*bytes));
        let (low, high) = numbers()
            .filter(|number| number.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), number| {
                (low.min(number), high.max(number))
            });
        // Halved, because the distance of two numbers may be none.
        let range = high / 2.0 - low / 2.0;
        if range <= 0.0 || !range.is_finite() {
            return vec![0; data.len() / N]; // all the same, or nothing finite
        }
        let scale = 127.5 / range;
        numbers()
            .map(|number| {
                if number.is_finite() {
                    (((number / 2.0 - low / 2.0) * 2.0) * scale + 0.5) as u8
                } else {
                    0
                }
            })
            .collect()
    }
    match item {
        Item::U16 => spread(data, |bytes| f64::from(u16::from_le_bytes(bytes))),
        Item::I16 => spread(data, |bytes| f64::from(i16::from_le_bytes(bytes))),
        Item::U32 => spread(data, |bytes| f64::from(u32::from_le_bytes(bytes))),
        Item::I32 => spread(data, |bytes| f64::from(i32::from_le_bytes(bytes))),
        Item::F16 => spread(data, |bytes| half(u16::from_le_bytes(bytes))),
        Item::F32 => spread(data, |bytes| f64::from(f32::from_le_bytes(bytes))),
        Item::F64 => spread(data, f64::from_le_bytes),
    }
}

/// IEEE 754 binary16.
fn half(bits: u16) -> f64 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    sign * match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{half, levels};
    use crate::pictures::{Item, PixelFormat, Pixels};

    fn flat(format: PixelFormat, width: u32, height: u32, data: &[u8]) -> Vec<u8> {
        let pixels = Pixels::new(format, width, height, Bytes::copy_from_slice(data)).unwrap();
        let flat = super::flatten(&pixels);
        let pixels = usize::from(flat.channels) * (width * height) as usize;
        assert_eq!(flat.data.len(), pixels, "{format:?} {width} x {height}");
        flat.red_first().data.into_owned()
    }

    #[test]
    fn blue_first_is_red_first_afterwards() {
        assert_eq!(
            flat(PixelFormat::Bgr8, 2, 1, &[1, 2, 3, 4, 5, 6]),
            [3, 2, 1, 6, 5, 4]
        );
        assert_eq!(flat(PixelFormat::Bgra8, 1, 1, &[1, 2, 3, 4]), [3, 2, 1, 4]);
        assert_eq!(flat(PixelFormat::Rgba8, 1, 1, &[1, 2, 3, 4]), [1, 2, 3, 4]);
    }

    #[test]
    fn yuv_of_black_white_and_colours_is_that_of_bt_601() {
        // Luma 16 and 235 without colour; then red as OpenCV writes it: Y 81, U 90, V 240.
        let yuyv = [16, 128, 235, 128, 81, 90, 81, 240];
        let rgb = flat(PixelFormat::Yuyv, 4, 1, &yuyv);
        assert_eq!(rgb[..6], [0, 0, 0, 255, 255, 255]);
        assert!(rgb[6] >= 253 && rgb[7] <= 2 && rgb[8] <= 2, "{rgb:?}");
        let uyvy: Vec<u8> = yuyv.chunks(2).flat_map(|two| [two[1], two[0]]).collect();
        assert_eq!(flat(PixelFormat::Uyvy, 4, 1, &uyvy), rgb);
    }

    #[test]
    fn yuv_of_odd_width_has_all_its_pixels() {
        assert_eq!(flat(PixelFormat::Yuyv, 1, 1, &[235, 128]), [255, 255, 255]);
        assert_eq!(flat(PixelFormat::Uyvy, 1, 1, &[128, 235]), [255, 255, 255]);
        let three = flat(PixelFormat::Yuyv, 3, 1, &[81, 90, 81, 240, 81, 90]);
        assert_eq!(three[..3], three[6..]);
    }

    #[test]
    fn bayer_block_has_the_colours_that_were_measured_in_it() {
        for (name, data) in [
            ("bayer_rggb8", [10, 20, 40, 30]),
            ("bayer_bggr8", [30, 20, 40, 10]),
            ("bayer_gbrg8", [20, 30, 10, 40]),
            ("bayer_grbg8", [20, 10, 30, 40]),
        ] {
            let format = PixelFormat::from_name(name).unwrap();
            assert_eq!(flat(format, 2, 2, &data), [10, 30, 30].repeat(4), "{name}");
        }
        let format = PixelFormat::from_name("bayer_rggb8").unwrap();
        for (width, height) in [(1, 1), (1, 2), (2, 1), (3, 3), (5, 2)] {
            let data = vec![7; (width * height) as usize];
            let rgb = flat(format, width, height, &data);
            assert_eq!(rgb[0], 7, "{width} x {height}");
        }
    }

    #[test]
    fn numbers_are_spread_from_black_to_white() {
        let of = |values: &[f32]| {
            let data: Vec<u8> = values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect();
            levels(&data, Item::F32)
        };
        assert_eq!(of(&[-1.0, 0.0, 1.0]), [0, 128, 255]);
        assert_eq!(of(&[5.0, 5.0]), [0, 0]);
        assert_eq!(of(&[f32::NAN, f32::INFINITY]), [0, 0]);
        assert_eq!(of(&[f32::NAN, 2.0, 4.0, f32::NEG_INFINITY]), [0, 0, 255, 0]);
        assert_eq!(of(&[f32::MIN, f32::MAX]), [0, 255]);
        let doubles = [f64::MIN, 0.0, f64::MAX].map(f64::to_le_bytes).concat();
        assert_eq!(levels(&doubles, Item::F64), [0, 128, 255]);
        let depth = [0u16, 500, 1000].map(u16::to_le_bytes).concat();
        assert_eq!(levels(&depth, Item::U16), [0, 128, 255]);
        assert_eq!(levels(&[0xff, 0xff, 0, 0], Item::I16), [0, 255]);
        assert_eq!(levels(&[0xff; 4], Item::U32), [0]);
        assert_eq!(levels(&[0, 0, 0, 0x80, 1, 0, 0, 0], Item::I32), [0, 255]);
    }

    #[test]
    fn halves_are_those_of_ieee_754() {
        for (bits, value) in [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65_504.0),
            (0x0001, 5.960_464_477_539_063e-8),
            (0x3555, 0.333_251_953_125),
        ] {
            assert!((half(bits) - value).abs() < 1e-15, "{bits:x}");
        }
        assert!(half(0x7c00).is_infinite() && half(0x7e00).is_nan());
    }
}
