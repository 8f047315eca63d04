//! Multiplies with AVX2's products of pairs of 16-bit integers, for processors without dot products of bytes.

use super::line::Line;
use super::rows::{Products, Rows};
use crate::cpu::microkernel::PANEL;
use std::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_and_si256, _mm256_load_si256, _mm256_madd_epi16, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_setzero_si256, _mm256_slli_epi16, _mm256_srai_epi16, _mm256_srli_epi16,
    _mm256_storeu_si256,
};

/// The rows of a tile, whose sums for a panel fill half of the registers.
const ROWS: usize = 4;

pub(super) fn is_supported() -> bool {
    is_x86_feature_detected!("avx2")
}

/// Writes the products of all rows with one or two panels.
///
/// # Safety
/// As for [`Rows`], and [`is_supported`] must be true.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn multiply(rows: &Rows, right: &[&[Line]], out: &mut [Products]) {
    for (panel, right) in right.iter().enumerate() {
        for (starts, out) in rows.starts.chunks(ROWS).zip(out.chunks_mut(ROWS)) {
            // SAFETY: the caller guarantees the rows.
            unsafe {
                match starts.first_chunk::<ROWS>() {
                    Some(starts) => tile(starts, &right[..rows.quads], panel, out),
                    None => {
                        for (start, out) in starts.iter().zip(out.chunks_mut(1)) {
                            tile(&[*start], &right[..rows.quads], panel, out);
                        }
                    }
                }
            }
        }
    }
}

/// Multiplies a few rows by a panel. Products of a row's bytes, unsigned, with the panel's, signed, fit into 16 bits
/// only alone, so even and odd bytes are widened apart.
///
/// # Safety
/// The processor must have AVX2, and each start as many fours of values as `right` has lines.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn tile<const ROWS: usize>(
    starts: &[*const Line; ROWS],
    right: &[Line],
    panel: usize,
    out: &mut [Products],
) {
    let low_bytes = _mm256_set1_epi16(0xff);
    let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
    for (quad, line) in right.iter().enumerate() {
        let halves = line.0.as_chunks::<32>().0;
        let right: [[__m256i; 2]; 2] = std::array::from_fn(|half| {
            // SAFETY: lines are aligned to 64 bytes, and a half has 32.
            let bytes = unsafe { _mm256_load_si256(halves[half].as_ptr().cast()) };
            [_mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8), _mm256_srai_epi16(bytes, 8)]
        });
        for (sums, start) in sums.iter_mut().zip(starts) {
            // SAFETY: the caller guarantees the rows.
            let left = _mm256_set1_epi32(unsafe { *start.cast::<i32>().add(quad) });
            let left = [_mm256_and_si256(left, low_bytes), _mm256_srli_epi16(left, 8)];
            for (sum, right) in sums.iter_mut().zip(right) {
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(left[0], right[0]));
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(left[1], right[1]));
            }
        }
    }
    for (sums, out) in sums.iter().zip(out) {
        for (sum, out) in sums.iter().zip(out[panel].as_chunks_mut::<{ PANEL / 2 }>().0) {
            // SAFETY: half of a panel's columns are one vector.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), *sum) };
        }
    }
}
