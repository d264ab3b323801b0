//! Smaller pictures: each pixel is the average of the area that it covers.
//!
//! Nothing else has no ripples and no dropped lines when a picture is shrunk several times over. It is done in whole numbers: a pixel of
//! the source is as wide as the result has columns and a pixel of the result as wide as the source has, so every overlap is a whole
//! number. Rows are summed up first, which the compiler does with vectors and which goes over all bytes once; then the sums of
//! each row of the result are averaged along it.

#![expect(
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "sums are positive and below 2^40, which a double holds exactly"
)]

use super::Flat;

/// The picture in `width` x `height`, which are at most what it has.
pub(super) fn area_average(flat: &Flat<'_>, width: u32, height: u32) -> Flat<'static> {
    let data = match flat.channels {
        1 => shrink::<1>(flat, width as usize, height as usize),
        3 => shrink::<3>(flat, width as usize, height as usize),
        _ => shrink::<4>(flat, width as usize, height as usize),
    };
    Flat {
        width,
        height,
        channels: flat.channels,
        blue_first: flat.blue_first,
        data: data.into(),
    }
}

fn shrink<const CHANNELS: usize>(flat: &Flat<'_>, width: usize, height: usize) -> Vec<u8> {
    let (wide, high) = (flat.width as usize, flat.height as usize);
    let row_bytes = wide * CHANNELS;
    let mut out = Vec::with_capacity(width * height * CHANNELS);
    // Of a column: 255 times the height at most, which is below 2^24.
    let mut sums = vec![0u32; row_bytes];
    // Total weight of a pixel of the result.
    let scale = 1.0 / (wide as f64 * high as f64);
    for row in 0..height {
        sums.fill(0);
        for (y, weight) in overlaps(row, high, height) {
            let source = &flat.data[y * row_bytes..][..row_bytes];
            for (sum, byte) in sums.iter_mut().zip(source) {
                *sum += weight * u32::from(*byte);
            }
        }
        for column in 0..width {
            let mut pixel = [0u64; CHANNELS];
            for (x, weight) in overlaps(column, wide, width) {
                let sums = &sums[x * CHANNELS..][..CHANNELS];
                for (total, sum) in pixel.iter_mut().zip(sums) {
                    *total += u64::from(weight) * u64::from(*sum);
                }
            }
            // Below 2^40: exact in 53 bits.
            out.extend(pixel.map(|total| (total as f64 * scale + 0.5) as u8));
        }
    }
    out
}

/// Which pixels of `source` number `index` of `result` covers, and how much of each: together `source`.
fn overlaps(index: usize, source: usize, result: usize) -> impl Iterator<Item = (usize, u32)> {
    let (start, end) = (index * source, (index + 1) * source);
    (start / result..end.div_ceil(result)).map(move |at| {
        let overlap = ((at + 1) * result).min(end) - (at * result).max(start);
        (at, overlap as u32)
    })
}

#[cfg(test)]
mod tests {
    use super::{Flat, area_average, overlaps};

    fn shrunk(channels: u8, from: (u32, u32), data: &[u8], to: (u32, u32)) -> Vec<u8> {
        let flat = Flat {
            width: from.0,
            height: from.1,
            channels,
            blue_first: false,
            data: data.into(),
        };
        area_average(&flat, to.0, to.1).data.into_owned()
    }

    #[test]
    fn pixel_is_the_average_of_what_it_covers() {
        assert_eq!(shrunk(1, (2, 2), &[0, 10, 20, 30], (1, 1)), [15]);
        assert_eq!(shrunk(1, (4, 1), &[0, 10, 20, 40], (2, 1)), [5, 30]);
        // 1.5 pixels each: (0 + 30 / 2) / 1.5 and (30 / 2 + 90) / 1.5.
        assert_eq!(shrunk(1, (3, 1), &[0, 30, 90], (2, 1)), [10, 70]);
        assert_eq!(
            shrunk(3, (2, 1), &[0, 1, 2, 10, 21, 255], (1, 1)),
            [5, 11, 129]
        );
        assert_eq!(
            shrunk(4, (1, 2), &[0, 0, 0, 255, 255, 1, 2, 0], (1, 1)),
            [128, 1, 1, 128]
        );
    }

    #[test]
    fn even_picture_stays_even_at_any_size() {
        for value in [0, 1, 127, 254, 255] {
            for to in [(1, 1), (7, 5), (36, 22), (37, 23)] {
                let out = shrunk(3, (37, 23), &[value; 37 * 23 * 3], to);
                assert!(out.iter().all(|&byte| byte == value), "{value} {to:?}");
                assert_eq!(out.len() as u32, to.0 * to.1 * 3);
            }
        }
    }

    #[test]
    fn largest_sums_do_not_overflow() {
        let data = vec![255; 65_535];
        assert_eq!(shrunk(1, (65_535, 1), &data, (1, 1)), [255]);
        assert_eq!(shrunk(1, (1, 65_535), &data, (1, 2)), [255, 255]);
    }

    #[test]
    fn every_pixel_of_the_source_counts_the_same() {
        for (source, result) in [(10, 3), (7, 7), (1920, 961), (5, 1)] {
            let mut weights = vec![0; source];
            for index in 0..result {
                let mut total = 0;
                for (at, weight) in overlaps(index, source, result) {
                    weights[at] += weight;
                    total += weight;
                }
                assert_eq!(total as usize, source);
            }
            assert!(weights.iter().all(|&weight| weight as usize == result));
        }
    }
}
