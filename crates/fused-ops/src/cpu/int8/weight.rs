//! Packs weights in the order in which the int8 kernels read them.

use super::line::{LINE, Line, SHIFT};
use crate::cpu::microkernel::PANEL;
use crate::cpu::pack::{Factor, FactorPart, FactorSize};
use rayon::prelude::*;
use std::ops::Range;

/// A right factor of one tap in panels of 16 columns. A panel has whole tiles of 16 lines, each with four rows of the
/// panel: `value(k, column) = line(column / 16, k / 4)[4 · (column % 16) + k % 4]`.
#[derive(Debug, Clone)]
pub(crate) struct Int8Weight {
    lines: Vec<Line>,
    /// What each column's integers are multiplied by.
    scales: Vec<f32>,
    /// What the shift of the left factor adds to each column's product.
    excess: Vec<i32>,
    /// What the left factor's columns are multiplied by.
    factors: Option<Vec<f32>>,
    size: FactorSize,
}

impl Int8Weight {
    /// The largest depth whose products fit into i32.
    pub(crate) const MAX_DEPTH: usize = i32::MAX as usize / (128 * 128);

    /// Packs integers (columns, depth), with a scale for each column and perhaps a factor for each value of the depth.
    /// The integers must be at least −127.
    pub(crate) fn new(
        values: &[i8],
        scales: Vec<f32>,
        factors: Option<Vec<f32>>,
        [columns, depth]: [usize; 2],
    ) -> Self {
        assert!(depth <= Self::MAX_DEPTH && values.len() == columns * depth && scales.len() == columns);
        assert!(factors.as_ref().is_none_or(|factors| factors.len() == depth));
        let per_panel = lines_per_panel(depth);
        let mut lines = vec![Line::ZERO; columns.div_ceil(PANEL) * per_panel];
        let panels = values.par_chunks((PANEL * depth).max(1));
        lines.par_chunks_mut(per_panel.max(1)).zip(panels).for_each(|(lines, values)| {
            for (column, values) in values.chunks_exact(depth.max(1)).enumerate() {
                for (line, quad) in lines.iter_mut().zip(values.chunks(4)) {
                    let lane = line.0[4 * column..].iter_mut();
                    lane.zip(quad).for_each(|(to, value)| *to = value.cast_unsigned());
                }
            }
        });
        let sum = |values: &[i8]| values.iter().map(|value| i32::from(*value)).sum::<i32>();
        let mut excess = vec![0; columns];
        let rows = excess.iter_mut().zip(values.chunks_exact(depth.max(1)));
        rows.for_each(|(excess, values)| *excess = sum(values) * i32::from(SHIFT));
        Self { lines, scales, excess, factors, size: FactorSize { taps: 1, depth, columns } }
    }

    /// The lines of one panel.
    #[inline(always)]
    pub(super) fn panel(&self, panel: usize) -> &[Line] {
        let len = lines_per_panel(self.size.depth);
        &self.lines[panel * len..][..len]
    }

    /// What the integers of a panel's columns are multiplied by, and what the shift adds to their products; zeros after
    /// the last column.
    pub(super) fn panel_scales(&self, panel: usize) -> ([f32; PANEL], [i32; PANEL]) {
        let (mut scales, mut excess) = ([0f32; PANEL], [0i32; PANEL]);
        let columns = self.scales.iter().zip(&self.excess).skip(panel * PANEL);
        let to = scales.iter_mut().zip(&mut excess);
        to.zip(columns).for_each(|(to, from)| (*to.0, *to.1) = (*from.0, *from.1));
        (scales, excess)
    }

    /// What the left factor's columns are multiplied by.
    pub(super) fn factors(&self) -> Option<&[f32]> {
        self.factors.as_deref()
    }

    /// The weight as a plain (depth, columns) array.
    pub(crate) fn unpack(&self) -> Vec<f32> {
        let FactorSize { depth, columns, .. } = self.size;
        let mut out = vec![0f32; depth * columns];
        for (k, out) in out.chunks_exact_mut(columns.max(1)).enumerate() {
            for (panel, out) in out.chunks_mut(PANEL).enumerate() {
                out.copy_from_slice(&self.values(panel, k)[..out.len()]);
            }
        }
        out
    }

    /// A row of a panel, with zeros after the last column.
    #[inline(always)]
    fn values(&self, panel: usize, k: usize) -> [f32; PANEL] {
        let factor = self.factors.as_ref().map_or(1., |factors| factors[k]);
        let line = self.panel(panel)[k / 4].0.as_chunks::<4>().0;
        let mut out = [0f32; PANEL];
        for ((out, values), scale) in out.iter_mut().zip(line).zip(&self.scales[panel * PANEL..]) {
            *out = f32::from(values[k % 4].cast_signed()) * scale * factor;
        }
        out
    }
}

/// The lines of a panel, a multiple of 16.
pub(super) fn lines_per_panel(depth: usize) -> usize {
    depth.next_multiple_of(LINE) / 4
}

/// Other operations read weights in f32.
impl Factor for Int8Weight {
    type Value = f32;

    /// Users of quantized weights want little memory.
    const MAY_KEEP_FLOATS: bool = false;
    const ROWS_PER_TASK: usize = 96;

    fn size(&self) -> FactorSize {
        self.size
    }

    fn depth_per_part(&self) -> usize {
        /// Two panels take 128 KiB in f32, a part of the L2 cache.
        const ROWS: usize = 1024;
        ROWS
    }

    #[inline(always)]
    fn part<'a>(
        &'a self,
        panels: &[usize],
        depth: Range<usize>,
        scratch: &'a mut Vec<f32>,
    ) -> FactorPart<'a, f32> {
        let rows = depth.len();
        scratch.resize(panels.len() * rows * PANEL, 0.);
        let out = scratch.as_chunks_mut::<PANEL>().0.chunks_exact_mut(rows.max(1));
        for (panel, out) in panels.iter().zip(out) {
            depth.clone().zip(out).for_each(|(k, out)| *out = self.values(*panel, k));
        }
        FactorPart { data: scratch, rows_per_tap: rows, panel_stride: rows * PANEL }
    }
}
