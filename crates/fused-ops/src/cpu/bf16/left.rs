//! Rounds left factors to bf16.

use super::line::{LINE, Line, round};
use crate::cpu::simd::vectorized;
use rayon::prelude::*;

/// The rows that a task rounds.
const ROWS_PER_TASK: usize = 16;

/// The rows of a left factor, in whole lines padded with zeros.
pub(super) struct LeftRows {
    lines: Vec<Line>,
    /// The lines from one row to the next.
    stride: usize,
    /// The lines of a row.
    count: usize,
}

impl LeftRows {
    /// Rounds rows of `depth` values.
    pub(super) fn round(values: &[f32], depth: usize) -> Self {
        let count = depth.div_ceil(LINE);
        // Rows at a distance of a large power of two would evict each other from the cache.
        let stride = count + usize::from(count.is_multiple_of(16));
        let rows = values.len().checked_div(depth).unwrap_or(0);
        let mut lines = vec![Line::ZERO; rows * stride];
        let tasks = lines.par_chunks_mut((ROWS_PER_TASK * stride).max(1));
        tasks.zip(values.par_chunks((ROWS_PER_TASK * depth).max(1))).for_each(|(lines, values)| {
            vectorized(
                #[inline(always)]
                || {
                    for (lines, values) in lines.chunks_exact_mut(stride).zip(values.chunks_exact(depth)) {
                        let (whole, rest) = values.as_chunks::<LINE>();
                        for (line, values) in lines.iter_mut().zip(whole) {
                            for (to, value) in line.0.iter_mut().zip(values) {
                                *to = round(*value);
                            }
                        }
                        if let Some(line) = lines.get_mut(whole.len()) {
                            line.0.iter_mut().zip(rest).for_each(|(to, value)| *to = round(*value));
                        }
                    }
                },
            );
        });
        Self { lines, stride, count }
    }

    /// The lines of a row.
    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> &[Line] {
        &self.lines[row * self.stride..][..self.count]
    }
}
