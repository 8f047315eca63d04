//! Resizes 8-bit RGB images exactly like Pillow (`src/libImaging/Resample.c` and `Geometry.c`).
//!
//! Pillow filters along the rows and along the columns, with fixed-point coefficients, rounding and clipping to bytes
//! in between. At hard edges the order matters: up to 20 levels on the tall golden image. Releases before 13.0 always
//! take the rows first; this is the order of 13.0. `fast_image_resize` always takes the columns first, and is off by
//! up to 29 levels (bicubic) and 56 (Lanczos) on black and white images; it also picks other nearest neighbours.

use std::f64::consts::PI;
use std::ops::Range;

use image::RgbImage;

use super::Resampling;

/// Fraction bits of a coefficient, leaving 8 bits for a byte, and 2 for the sign and sums above 1.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// Resizes `image` to `width` × `height` and returns the part at `columns` and `rows` of the result.
///
/// Computes only that part: the middle of an image whose long side grows to millions is cheap. No side may be 0, and
/// `columns` and `rows` must lie in the result.
pub(super) fn resize(
    image: &RgbImage,
    (width, height): (u32, u32),
    filter: Resampling,
    columns: Range<u32>,
    rows: Range<u32>,
) -> RgbImage {
    let Some(kernel) = Kernel::of(filter) else {
        let columns = nearest(image.width(), width, columns);
        let rows = nearest(image.height(), height, rows);
        return RgbImage::from_fn(columns.len() as u32, rows.len() as u32, |x, y| {
            *image.get_pixel(columns[x as usize], rows[y as usize])
        });
    };
    let columns = kernel.taps(image.width(), width, columns);
    let rows = kernel.taps(image.height(), height, rows);
    // The first pass skips rows that are not needed.
    let first = rows.iter().map(|taps| taps.start).min().unwrap_or(0);
    let end = rows.iter().map(Taps::end).max().unwrap_or(0);
    let stride = 3 * image.width() as usize;
    let read = &image.as_raw()[stride * first..stride * end];
    let resized = if columns_first(image.dimensions(), (width, height)) {
        along_rows(&along_columns(read, stride, first, &rows), stride, &columns)
    } else {
        along_columns(&along_rows(read, stride, &columns), 3 * columns.len(), first, &rows)
    };
    let mut result = RgbImage::new(columns.len() as u32, rows.len() as u32);
    result.copy_from_slice(&resized);
    result
}

/// Whether to filter columns first: when the height shrinks more than twice as much as the width.
fn columns_first(have: (u32, u32), want: (u32, u32)) -> bool {
    let lost = |have: u32, want: u32| i64::from(have) - i64::from(want);
    let (width, height) = (lost(have.0, want.0), lost(have.1, want.1));
    height > 0 && height > 2 * width
}

/// The source positions of the nearest neighbours. Pillow accumulates the scale, and at large scales the accumulated
/// rounding errors decide between two neighbours.
fn nearest(have: u32, want: u32, window: Range<u32>) -> Vec<u32> {
    let scale = f64::from(have) / f64::from(want);
    let mut position = scale * 0.5;
    let mut positions = Vec::with_capacity(window.len());
    for index in 0..window.end {
        if index >= window.start {
            positions.push((position as u32).min(have - 1));
        }
        position += scale;
    }
    positions
}

/// A filter function, and its support at scale 1.
struct Kernel {
    support: f64,
    value: fn(f64) -> f64,
}

impl Kernel {
    /// None for nearest neighbour, which is not a convolution.
    fn of(filter: Resampling) -> Option<Self> {
        let (support, value): (f64, fn(f64) -> f64) = match filter {
            Resampling::Nearest => return None,
            Resampling::Box => (0.5, |x| if x > -0.5 && x <= 0.5 { 1. } else { 0. }),
            Resampling::Bilinear => (1., |x| (1. - x.abs()).max(0.)),
            Resampling::Hamming => (1., hamming),
            Resampling::Bicubic => (2., bicubic),
            Resampling::Lanczos => {
                (3., |x| if (-3. ..3.).contains(&x) { sinc(x) * sinc(x / 3.) } else { 0. })
            }
        };
        Some(Self { support, value })
    }

    /// What each position of `window` reads when `have` pixels become `want`. Shrinking widens the filter.
    fn taps(&self, have: u32, want: u32, window: Range<u32>) -> Vec<Taps> {
        let scale = f64::from(have) / f64::from(want);
        let widening = scale.max(1.);
        let support = self.support * widening;
        let taps = |index: u32| {
            let centre = (f64::from(index) + 0.5) * scale;
            // The casts truncate, and negative values become 0.
            let start = (centre - support + 0.5) as u32;
            let end = ((centre + support + 0.5) as u32).min(have);
            let weights: Vec<f64> = (start..end)
                .map(|pixel| (self.value)((f64::from(pixel) - centre + 0.5) * (1. / widening)))
                .collect();
            let sum: f64 = weights.iter().sum();
            let one = f64::from(1 << PRECISION_BITS);
            // Rounds halves away from zero, like `round`.
            let coefficients = weights.iter().map(|weight| (weight / sum * one).round() as i32).collect();
            Taps { start: start as usize, coefficients }
        };
        window.map(taps).collect()
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0. { 1. } else { (x * PI).sin() / (x * PI) }
}

/// With Pillow's constants, which are f32.
fn hamming(x: f64) -> f64 {
    if x.abs() >= 1. { 0. } else { sinc(x) * (f64::from(0.54f32) + f64::from(0.46f32) * (x * PI).cos()) }
}

/// Keys' cubic with a = −1/2.
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1. {
        ((A + 2.) * x - (A + 3.)) * x * x + 1.
    } else if x < 2. {
        (((x - 5.) * x + 8.) * x - 4.) * A
    } else {
        0.
    }
}

/// The source pixels that an output pixel is the weighted sum of.
struct Taps {
    start: usize,
    /// In units of 2^−[`PRECISION_BITS`]; they sum to 1.
    coefficients: Vec<i32>,
}

impl Taps {
    fn end(&self) -> usize {
        self.start + self.coefficients.len()
    }
}

/// A half: starting sums from it makes truncation round.
const HALF: i32 = 1 << (PRECISION_BITS - 1);

fn to_byte(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// Filters each row of `pixels`, `stride` bytes long.
fn along_rows(pixels: &[u8], stride: usize, columns: &[Taps]) -> Vec<u8> {
    let mut filtered = Vec::with_capacity(pixels.len() / stride * columns.len() * 3);
    for row in pixels.chunks_exact(stride) {
        let (row, _) = row.as_chunks::<3>();
        for taps in columns {
            let mut sums = [HALF; 3];
            for (pixel, coefficient) in row[taps.start..taps.end()].iter().zip(&taps.coefficients) {
                for (sum, &byte) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(byte) * coefficient;
                }
            }
            filtered.extend(sums.map(to_byte));
        }
    }
    filtered
}

/// Filters each column of `pixels`, whose rows are `stride` bytes long, starting at the source's row `first`.
fn along_columns(pixels: &[u8], stride: usize, first: usize, rows: &[Taps]) -> Vec<u8> {
    let mut filtered = Vec::with_capacity(stride * rows.len());
    let mut sums = vec![HALF; stride];
    for taps in rows {
        sums.fill(HALF);
        let read = &pixels[stride * (taps.start - first)..stride * (taps.end() - first)];
        for (row, coefficient) in read.chunks_exact(stride).zip(&taps.coefficients) {
            for (sum, &byte) in sums.iter_mut().zip(row) {
                *sum += i32::from(byte) * coefficient;
            }
        }
        filtered.extend(sums.iter().map(|&sum| to_byte(sum)));
    }
    filtered
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The assumption behind [`PRECISION_BITS`]: absolute coefficients sum to less than 2, so no sum of bytes
    /// overflows at any size.
    #[test]
    fn sums_fit_in_32_bits() {
        use Resampling::{Bicubic, Bilinear, Box, Hamming, Lanczos};
        for kernel in [Bicubic, Bilinear, Box, Hamming, Lanczos].into_iter().filter_map(Kernel::of) {
            for (have, want) in (1..40).flat_map(|have| (1..80).map(move |want| (have, want))) {
                for taps in kernel.taps(have, want, 0..want) {
                    let sum: i64 = taps.coefficients.iter().map(|&c| i64::from(c).abs()).sum();
                    assert!(i64::from(HALF) + 255 * sum <= i64::from(i32::MAX), "{have} to {want}: {sum}");
                }
            }
        }
    }
}
