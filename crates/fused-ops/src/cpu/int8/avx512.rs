//! Multiplies with AVX-512's dot products of fours of bytes, one factor unsigned and one signed.

use super::line::Line;
use super::rows::{Products, Rows};
use crate::cpu::microkernel::PANEL;
use std::arch::x86_64::{
    __m512i, _mm512_dpbusd_epi32, _mm512_load_si512, _mm512_set1_epi32, _mm512_setzero_si512,
    _mm512_storeu_si512,
};
use std::hint::black_box;

pub(super) fn is_supported() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni")
}

/// Writes the products of all rows with one or two panels.
///
/// # Safety
/// As for [`Rows`], and [`is_supported`] must be true.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) unsafe fn multiply(rows: &Rows, right: &[&[Line]], out: &mut [Products]) {
    // SAFETY: the caller guarantees the rows.
    unsafe {
        match right {
            [first, second] => all_rows(rows, [first, second], out),
            [only] => all_rows(rows, [only], out),
            _ => unreachable!("a product is of one panel or two"),
        }
    }
}

/// Processes all rows in tiles of 12, whose 24 sums fill the registers, then smaller ones.
///
/// # Safety
/// As for [`multiply`].
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn all_rows<const PANELS: usize>(rows: &Rows, right: [&[Line]; PANELS], out: &mut [Products]) {
    let count = rows.starts.len();
    let mut row = 0;
    // SAFETY: the caller guarantees the rows.
    unsafe {
        while row + 12 <= count {
            tile::<12, PANELS>(rows, row, right, &mut out[row..]);
            row += 12;
        }
        while row + 4 <= count {
            tile::<4, PANELS>(rows, row, right, &mut out[row..]);
            row += 4;
        }
        while row < count {
            tile::<1, PANELS>(rows, row, right, &mut out[row..]);
            row += 1;
        }
    }
}

/// # Safety
/// As for [`multiply`], and there must be this many rows from `row` on.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn tile<const ROWS: usize, const PANELS: usize>(
    rows: &Rows,
    row: usize,
    right: [&[Line]; PANELS],
    out: &mut [Products],
) {
    let left: [*const i32; ROWS] = std::array::from_fn(|i| rows.starts[row + i].cast());
    let right = right.map(|right| right[..rows.quads].as_ptr());
    let mut sums = [[_mm512_setzero_si512(); PANELS]; ROWS];
    for quad in 0..rows.quads {
        // SAFETY: the panels have this many lines, and lines are aligned.
        let right: [__m512i; PANELS] =
            right.map(|right| unsafe { _mm512_load_si512(right.add(quad).cast()) });
        for (sums, left) in sums.iter_mut().zip(left) {
            // SAFETY: the caller guarantees the rows' lines.
            let left = _mm512_set1_epi32(unsafe { *left.add(quad) });
            for (sum, right) in sums.iter_mut().zip(right) {
                *sum = _mm512_dpbusd_epi32(*sum, left, right);
            }
        }
    }
    for (sums, out) in sums.iter().zip(out) {
        for (sum, out) in sums.iter().zip(out) {
            const { assert!(PANEL == 16) };
            // SAFETY: a panel's columns are one vector.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), *sum) };
        }
    }
}

/// Performs a fixed number of operations on registers, and returns that number.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) fn operations() -> u64 {
    const ROUNDS: usize = 20_000;
    const SUMS: usize = 12;
    let factor = _mm512_set1_epi32(black_box(0));
    let mut sums = [_mm512_setzero_si512(); SUMS];
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, factor, factor);
        }
    }
    black_box(sums);
    (8 * 16 * ROUNDS * SUMS) as u64
}
