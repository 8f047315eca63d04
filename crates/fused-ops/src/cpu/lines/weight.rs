//! Packs weights in the order in which the kernels read them.

use super::line::{Group, Line};
use crate::cpu::microkernel::PANEL;
use crate::cpu::pack::{Factor, FactorPart, FactorSize, Panels};
use rayon::prelude::*;
use std::ops::Range;

/// How numbers become the values of lines, and sums of their products become numbers.
pub(crate) trait Encoding: Send + Sync {
    type Group: Group;
    /// What a row of the left factor is multiplied by. Only weights of one tap may have such scales.
    type RowScale: Copy + Default + Send + Sync;
    /// What turns the sums of a panel's columns into numbers.
    type PanelScale;

    /// Whether a layer may cache derived f32 data.
    const MAY_KEEP_FLOATS: bool;
    /// The rows of two panels, of all taps that a weight may have, that are a part of the L2 cache in f32.
    const ROWS_PER_PART: usize;
    /// A group of zeros of a left factor.
    const ZEROS: Self::Group;

    /// Encodes a row of the left factor, perhaps with the help of memory that is kept for the next row. The rest of `out`
    /// keeps its zeros.
    fn encode_row(
        &self,
        values: &[f32],
        scratch: &mut Vec<f32>,
        out: &mut [Line<Self::Group>],
    ) -> Self::RowScale;

    fn panel_scale(&self, panel: usize) -> Self::PanelScale;

    /// Turns a row's sums with a panel into numbers.
    fn decode_sums(
        sums: &[<Self::Group as Group>::Sum; PANEL],
        row: Self::RowScale,
        panel: &Self::PanelScale,
        out: &mut [f32; PANEL],
    );

    /// Turns row `k` of a panel of the weight into numbers.
    fn decode_weights(
        &self,
        values: [<Self::Group as Group>::Value; PANEL],
        panel: usize,
        k: usize,
    ) -> [f32; PANEL];
}

/// A right factor in panels of 16 columns. For each tap, a panel has whole tiles of 16 lines, each with a group of every
/// column: `value(tap, k, column) = line(column / 16, tap, k / n)[column % 16][k % n]` for groups of n values.
#[derive(Debug, Clone)]
pub(crate) struct LineWeight<E: Encoding> {
    lines: Vec<Line<E::Group>>,
    size: FactorSize,
    pub(super) encoding: E,
}

impl<E: Encoding> LineWeight<E> {
    pub(crate) fn pack(panels: &Panels<<E::Group as Group>::Value>, encoding: E) -> Self {
        let mut packed = Self::zeros(panels.size(), encoding);
        let per_tap = packed.lines_per_tap();
        let rows = panels.rows().par_chunks(packed.size.depth.max(1));
        packed.lines.par_chunks_mut(per_tap.max(1)).zip(rows).for_each(|(lines, rows)| {
            for (line, rows) in lines.iter_mut().zip(rows.chunks(E::Group::LEN)) {
                for (place, row) in rows.iter().enumerate() {
                    line.0.iter_mut().zip(row).for_each(|(group, value)| group.set(place, *value));
                }
            }
        });
        packed
    }

    pub(crate) fn zeros(size: FactorSize, encoding: E) -> Self {
        let lines = size.columns.div_ceil(PANEL) * size.taps * lines_per_tap::<E::Group>(size.depth);
        Self { lines: vec![Line::ZERO; lines], size, encoding }
    }

    fn lines_per_tap(&self) -> usize {
        lines_per_tap::<E::Group>(self.size.depth)
    }

    /// The lines of all taps of one panel.
    #[inline(always)]
    pub(crate) fn panel(&self, panel: usize) -> &[Line<E::Group>] {
        let len = self.size.taps * self.lines_per_tap();
        &self.lines[panel * len..][..len]
    }

    pub(crate) fn panel_mut(&mut self, panel: usize) -> &mut [Line<E::Group>] {
        let len = self.size.taps * self.lines_per_tap();
        &mut self.lines[panel * len..][..len]
    }

    /// The lines of the panel `first` and, if there is one, the next.
    pub(crate) fn panels(&self, first: usize) -> Vec<&[Line<E::Group>]> {
        let count = self.size.columns.div_ceil(PANEL);
        (first.min(count)..count.min(first + 2)).map(|panel| self.panel(panel)).collect()
    }

    /// The weight as a plain (taps, depth, columns) array.
    pub(crate) fn unpack(&self) -> Vec<f32> {
        let FactorSize { taps, depth, columns } = self.size;
        let mut out = vec![0f32; taps * depth * columns];
        for (row, out) in out.chunks_exact_mut(columns.max(1)).enumerate() {
            for (panel, out) in out.chunks_mut(PANEL).enumerate() {
                out.copy_from_slice(&self.row(panel, row / depth, row % depth)[..out.len()]);
            }
        }
        out
    }

    /// A row of a panel, with zeros after the last column.
    #[inline(always)]
    fn row(&self, panel: usize, tap: usize, k: usize) -> [f32; PANEL] {
        let groups = &self.panel(panel)[tap * self.lines_per_tap() + k / E::Group::LEN].0;
        self.encoding.decode_weights(groups.map(|group| group.get(k % E::Group::LEN)), panel, k)
    }
}

/// The lines of a panel for each tap, a multiple of 16.
fn lines_per_tap<G: Group>(depth: usize) -> usize {
    depth.next_multiple_of(Line::<G>::VALUES) / G::LEN
}

/// Other operations read weights in f32, such as Winograd's algorithm, which transforms them.
impl<E: Encoding> Factor for LineWeight<E> {
    type Value = f32;

    const MAY_KEEP_FLOATS: bool = E::MAY_KEEP_FLOATS;
    const ROWS_PER_TASK: usize = 96;

    fn size(&self) -> FactorSize {
        self.size
    }

    fn depth_per_part(&self) -> usize {
        E::ROWS_PER_PART
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
            for (tap, out) in out.chunks_exact_mut(depth.len().max(1)).enumerate() {
                depth.clone().zip(out).for_each(|(k, out)| *out = self.row(*panel, tap, k));
            }
        }
        FactorPart { data: scratch, rows_per_tap: depth.len(), panel_stride: rows * PANEL }
    }
}
