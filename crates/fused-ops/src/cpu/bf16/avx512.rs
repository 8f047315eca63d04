//! Multiplies with AVX-512's dot products of pairs of bf16.

use super::line::Line;
use super::rows::{Products, Rows};
use crate::cpu::microkernel::PANEL;
use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_load_si512, _mm512_set1_epi32, _mm512_setzero_ps,
    _mm512_storeu_ps,
};
use std::hint::black_box;
use std::mem::transmute;

pub(super) fn is_supported() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16")
}

/// Writes the products of all rows with one or two panels.
///
/// # Safety
/// As for [`Rows`], and [`is_supported`] must be true.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn multiply(rows: &Rows, right: &[&[Line]], out: &mut [Products], stride: usize) {
    // SAFETY: the caller guarantees the rows.
    unsafe {
        match right {
            [first, second] => all_rows(rows, [first, second], out, stride),
            [only] => all_rows(rows, [only], out, stride),
            _ => unreachable!("a product is of one panel or two"),
        }
    }
}

/// Processes all rows in tiles of 12, whose 24 sums fill the registers, then smaller ones.
///
/// # Safety
/// As for [`multiply`].
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn all_rows<const PANELS: usize>(
    rows: &Rows,
    right: [&[Line]; PANELS],
    out: &mut [Products],
    stride: usize,
) {
    let count = rows.count();
    let mut row = 0;
    // SAFETY: the caller guarantees the rows.
    unsafe {
        while row + 12 <= count {
            tile::<12, PANELS>(rows, row, right, &mut out[row * stride..], stride);
            row += 12;
        }
        while row + 4 <= count {
            tile::<4, PANELS>(rows, row, right, &mut out[row * stride..], stride);
            row += 4;
        }
        while row < count {
            tile::<1, PANELS>(rows, row, right, &mut out[row * stride..], stride);
            row += 1;
        }
    }
}

/// # Safety
/// As for [`multiply`], and there must be this many rows from `row` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn tile<const ROWS: usize, const PANELS: usize>(
    rows: &Rows,
    row: usize,
    right: [&[Line]; PANELS],
    out: &mut [Products],
    stride: usize,
) {
    let mut sums = [[_mm512_setzero_ps(); PANELS]; ROWS];
    for tap in 0..rows.taps {
        let left = std::array::from_fn(|i| rows.starts[(row + i) * rows.taps + tap].cast());
        let right = right.map(|right| right[tap * rows.lines * 16..][..rows.pairs].as_ptr());
        // SAFETY: the caller guarantees the rows' lines, and the panels have as many.
        sums = unsafe { multiply_add(sums, left, right, rows.pairs) };
    }
    for (sums, out) in sums.iter().zip(out.iter_mut().step_by(stride)) {
        for (sum, out) in sums.iter().zip(out) {
            const { assert!(PANEL == 16) };
            // SAFETY: a panel's columns are one vector.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), *sum) };
        }
    }
}

/// Adds the products of one tap. Sums are passed by value to stay in registers.
///
/// # Safety
/// The processor must have the instructions, and `pairs` pairs must be valid.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn multiply_add<const ROWS: usize, const PANELS: usize>(
    mut sums: [[__m512; PANELS]; ROWS],
    left: [*const i32; ROWS],
    right: [*const Line; PANELS],
    pairs: usize,
) -> [[__m512; PANELS]; ROWS] {
    for pair in 0..pairs {
        // SAFETY: the caller guarantees them, and lines are aligned.
        let right = right.map(|right| bits(unsafe { _mm512_load_si512(right.add(pair).cast()) }));
        for (sums, left) in sums.iter_mut().zip(left) {
            // SAFETY: the caller guarantees it.
            let left = bits(_mm512_set1_epi32(unsafe { *left.add(pair) }));
            for (sum, right) in sums.iter_mut().zip(right) {
                *sum = _mm512_dpbf16_ps(*sum, left, right);
            }
        }
    }
    sums
}

#[inline]
#[target_feature(enable = "avx512f")]
fn bits(values: __m512i) -> __m512bh {
    // SAFETY: they have the same size, and all bit patterns are valid.
    unsafe { transmute(values) }
}

/// Performs a fixed number of operations on registers, and returns that number.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn operations() -> u64 {
    const ROUNDS: usize = 20_000;
    const SUMS: usize = 12;
    let factor = bits(_mm512_set1_epi32(black_box(0)));
    let mut sums = [_mm512_setzero_ps(); SUMS];
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            *sum = _mm512_dpbf16_ps(*sum, factor, factor);
        }
    }
    black_box(sums);
    (4 * 16 * ROUNDS * SUMS) as u64
}
