//! Packs weights in the order in which the bf16 kernels read them.

use super::line::{LINE, Line, round};
use crate::cpu::microkernel::{PANEL, Stored};
use crate::cpu::pack::{Factor, FactorPart, FactorSize, Panels};
use half::bf16;
use rayon::prelude::*;
use std::ops::Range;

/// A right factor in panels of 16 columns. For each tap, a panel has whole tiles of 16 lines, each with two rows of
/// the panel: `value(tap, k, column) = line(column / 16, tap, k / 2)[2 · (column % 16) + k % 2]`.
#[derive(Debug, Clone)]
pub(crate) struct Bf16Weight {
    lines: Vec<Line>,
    size: FactorSize,
}

impl Bf16Weight {
    pub(crate) fn new(panels: &Panels<bf16>) -> Self {
        let size = panels.size();
        let per_tap = lines_per_tap(size.depth);
        let mut lines = vec![Line::ZERO; size.columns.div_ceil(PANEL) * size.taps * per_tap];
        let rows = panels.rows().par_chunks(size.depth.max(1));
        lines.par_chunks_mut(per_tap.max(1)).zip(rows).for_each(|(lines, rows)| {
            for (line, rows) in lines.iter_mut().zip(rows.chunks(2)) {
                for (parity, row) in rows.iter().enumerate() {
                    line.0.iter_mut().skip(parity).step_by(2).zip(row).for_each(|(to, value)| *to = *value);
                }
            }
        });
        Self { lines, size }
    }

    /// Rounds a factor of one tap whose columns are rows of `source`, `stride` apart: the first `depth` values of
    /// each.
    pub(super) fn round_columns(source: &[f32], columns: usize, depth: usize, stride: usize) -> Self {
        let per_panel = lines_per_tap(depth);
        let mut lines = vec![Line::ZERO; columns.div_ceil(PANEL) * per_panel];
        for (column, source) in source.chunks(stride).enumerate().take(columns) {
            let lines = &mut lines[column / PANEL * per_panel..];
            let lane = column % PANEL * 2;
            for (line, pair) in lines.iter_mut().zip(source[..depth].chunks(2)) {
                line.0[lane..].iter_mut().zip(pair).for_each(|(to, value)| *to = round(*value));
            }
        }
        Self { lines, size: FactorSize { taps: 1, depth, columns } }
    }

    /// Rounds a factor of one tap whose rows are rows of `source`, `stride` apart: the first `columns` values of
    /// each.
    pub(super) fn round_rows(source: &[f32], depth: usize, columns: usize, stride: usize) -> Self {
        let per_panel = lines_per_tap(depth);
        let mut lines = vec![Line::ZERO; columns.div_ceil(PANEL) * per_panel];
        for (k, source) in source.chunks(stride).enumerate().take(depth) {
            for (panel, source) in source[..columns].chunks(PANEL).enumerate() {
                let pairs = lines[panel * per_panel + k / 2].0.as_chunks_mut::<2>().0;
                pairs.iter_mut().zip(source).for_each(|(pair, value)| pair[k % 2] = round(*value));
            }
        }
        Self { lines, size: FactorSize { taps: 1, depth, columns } }
    }

    /// The lines of all taps of one panel.
    #[inline(always)]
    pub(super) fn panel(&self, panel: usize) -> &[Line] {
        let len = self.size.taps * lines_per_tap(self.size.depth);
        &self.lines[panel * len..][..len]
    }

    /// The lines of the panel `first` and, if there is one, the next.
    pub(super) fn panels(&self, first: usize) -> Vec<&[Line]> {
        let count = self.size.columns.div_ceil(PANEL);
        (first.min(count)..count.min(first + 2)).map(|panel| self.panel(panel)).collect()
    }

    /// The weight as a plain (taps, depth, columns) array.
    pub(crate) fn unpack(&self) -> Vec<f32> {
        let FactorSize { taps, depth, columns } = self.size;
        let mut out = vec![0f32; taps * depth * columns];
        for (row, out) in out.chunks_exact_mut(columns.max(1)).enumerate() {
            let (tap, k) = (row / depth, row % depth);
            for (panel, out) in out.chunks_mut(PANEL).enumerate() {
                let line = &self.panel(panel)[tap * lines_per_tap(depth) + k / 2].0;
                let values = line.iter().skip(k % 2).step_by(2);
                out.iter_mut().zip(values).for_each(|(out, value)| *out = value.widen());
            }
        }
        out
    }
}

/// The lines of a panel for each tap, a multiple of 16.
pub(super) fn lines_per_tap(depth: usize) -> usize {
    depth.next_multiple_of(LINE) / 2
}

/// Winograd's algorithm reads weights in this form, to transform them in f32.
impl Factor for Bf16Weight {
    type Value = f32;

    const MAY_KEEP_FLOATS: bool = true;
    const ROWS_PER_TASK: usize = 96;

    fn size(&self) -> FactorSize {
        self.size
    }

    fn depth_per_part(&self) -> usize {
        /// 9 taps of two panels take 144 KiB in f32, a part of the L2 cache.
        const ROWS: usize = 128;
        ROWS
    }

    #[inline(always)]
    fn part<'a>(
        &'a self,
        panels: &[usize],
        depth: Range<usize>,
        scratch: &'a mut Vec<f32>,
    ) -> FactorPart<'a, f32> {
        let rows = self.size.taps * depth.len();
        scratch.resize(panels.len() * rows * PANEL, 0.);
        let out = scratch.as_chunks_mut::<PANEL>().0.chunks_exact_mut(rows.max(1));
        for (panel, out) in panels.iter().zip(out) {
            let lines = self.panel(*panel).chunks_exact(lines_per_tap(self.size.depth).max(1));
            for (lines, out) in lines.zip(out.chunks_exact_mut(depth.len().max(1))) {
                for (k, out) in depth.clone().zip(out) {
                    let values = lines[k / 2].0.as_chunks::<2>().0;
                    out.iter_mut().zip(values).for_each(|(out, pair)| *out = pair[k % 2].widen());
                }
            }
        }
        FactorPart { data: scratch, rows_per_tap: depth.len(), panel_stride: rows * PANEL }
    }
}
