//! Quantizes left factors, each row with a scale of its own.

use super::line::{LINE, Line, SHIFT};
use super::quantize::RowScale;
use crate::cpu::simd::vectorized;
use rayon::prelude::*;

/// The rows that a task quantizes.
const ROWS_PER_TASK: usize = 16;

/// The rows of a left factor, in whole lines.
pub(super) struct LeftRows {
    lines: Vec<Line>,
    scales: Vec<f32>,
    /// The lines from one row to the next.
    stride: usize,
    /// The lines of a row.
    count: usize,
}

impl LeftRows {
    /// Quantizes rows of `depth` values, each first multiplied by its column's factor.
    pub(super) fn quantize(values: &[f32], depth: usize, factors: Option<&[f32]>) -> Self {
        let count = depth.div_ceil(LINE);
        // Rows at a distance of a large power of two would evict each other from the cache.
        let stride = count + usize::from(count.is_multiple_of(16));
        let rows = values.len().checked_div(depth).unwrap_or(0);
        let (mut lines, mut scales) = (vec![Line::ZERO; rows * stride], vec![0f32; rows]);
        let tasks = lines.par_chunks_mut((ROWS_PER_TASK * stride).max(1));
        let tasks = tasks.zip(scales.par_chunks_mut(ROWS_PER_TASK));
        tasks.zip(values.par_chunks((ROWS_PER_TASK * depth).max(1))).for_each(|((lines, scales), values)| {
            // Smoothed values of a row.
            let mut smoothed = vec![0f32; if factors.is_some() { depth } else { 0 }];
            vectorized(
                #[inline(always)]
                || {
                    let rows = lines.chunks_exact_mut(stride).zip(values.chunks_exact(depth));
                    for ((lines, mut values), scale) in rows.zip(scales.iter_mut()) {
                        if let Some(factors) = factors {
                            let all = values.iter().zip(factors).zip(&mut smoothed);
                            all.for_each(|((value, factor), to)| *to = value * factor);
                            values = &smoothed;
                        }
                        let row = RowScale::of(values);
                        *scale = row.scale;
                        row.round(values, SHIFT, bytes_of(lines));
                    }
                },
            );
        });
        Self { lines, scales, stride, count }
    }

    /// The lines of a row.
    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> &[Line] {
        &self.lines[row * self.stride..][..self.count]
    }

    /// What a row's integers are multiplied by.
    #[inline(always)]
    pub(super) fn scale(&self, row: usize) -> f32 {
        self.scales[row]
    }
}

/// The bytes of lines, in order.
#[inline(always)]
fn bytes_of(lines: &mut [Line]) -> &mut [u8] {
    const { assert!(size_of::<Line>() == LINE) };
    // SAFETY: lines are bytes without padding.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), size_of_val(lines)) }
}
