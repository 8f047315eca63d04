//! Encodes left factors.

use super::line::Line;
use super::weight::Encoding;
use crate::cpu::output::SharedOutput;
use crate::cpu::simd::vectorized;
use rayon::prelude::*;

/// The rows that a task encodes.
const ROWS_PER_TASK: usize = 16;

/// The rows of a left factor, in whole lines.
pub(super) struct LeftRows<E: Encoding> {
    lines: Vec<Line<E::Group>>,
    scales: Vec<E::RowScale>,
    /// The lines from one row to the next.
    stride: usize,
    /// The lines of a row.
    count: usize,
}

impl<E: Encoding> LeftRows<E> {
    /// Encodes rows of `depth` values.
    pub(super) fn encode(encoding: &E, values: &[f32], depth: usize) -> Self {
        let mut left = Self::zeros(values.len().checked_div(depth).unwrap_or(0), depth);
        let stride = left.stride;
        let tasks = left.lines.par_chunks_mut((ROWS_PER_TASK * stride).max(1));
        let tasks = tasks.zip(left.scales.par_chunks_mut(ROWS_PER_TASK));
        tasks.zip(values.par_chunks((ROWS_PER_TASK * depth).max(1))).for_each(|((lines, scales), values)| {
            let mut scratch = Vec::new();
            vectorized(
                #[inline(always)]
                || {
                    let rows = lines.chunks_exact_mut(stride).zip(values.chunks_exact(depth));
                    for ((lines, values), scale) in rows.zip(scales.iter_mut()) {
                        *scale = encoding.encode_row(values, &mut scratch, lines);
                    }
                },
            );
        });
        left
    }

    /// Lines of zeros for rows of `depth` values.
    pub(super) fn zeros(rows: usize, depth: usize) -> Self {
        let count = depth.div_ceil(Line::<E::Group>::VALUES);
        // Rows at a distance of a large power of two would evict each other from the cache.
        let stride = count + usize::from(count.is_multiple_of(16));
        let lines = vec![Line::<E::Group>::ZERO; rows * stride];
        Self { lines, scales: vec![E::RowScale::default(); rows], stride, count }
    }

    /// The lines, for several threads to write, and how many there are from one row to the next.
    pub(super) fn shared(&mut self) -> (SharedOutput<'_, Line<E::Group>>, usize) {
        (SharedOutput::of_values(&mut self.lines), self.stride)
    }

    /// The lines of a row.
    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> &[Line<E::Group>] {
        &self.lines[row * self.stride..][..self.count]
    }

    /// What a row's values are multiplied by.
    #[inline(always)]
    pub(super) fn scale(&self, row: usize) -> E::RowScale {
        self.scales[row]
    }
}
