//! Packs the right factors of matrix products into panels.

use super::microkernel::{PANEL, Right, Stored};
use rayon::prelude::*;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Values worth a task of their own.
const VALUES_PER_TASK: usize = 16 * 1024;

/// Strides, in values, of a matrix (or a stack of `taps` of them) to be packed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strides {
    pub(crate) tap: usize,
    /// Along the shared dimension.
    pub(crate) depth: usize,
    pub(crate) column: usize,
}

/// The size of a right factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FactorSize {
    pub(crate) taps: usize,
    /// The shared dimension, per tap.
    pub(crate) depth: usize,
    pub(crate) columns: usize,
}

/// A right factor as a product's tasks see it: panels, provided in parts.
pub(crate) trait Factor: Sync {
    type Value: Stored;

    /// Whether a layer may cache derived f32 data.
    const MAY_KEEP_FLOATS: bool;
    /// Rows that a task multiplies by each part: enough to fetch parts rarely, few enough to stay in the L2 cache.
    const ROWS_PER_TASK: usize;

    fn size(&self) -> FactorSize;

    /// The largest part of the depth, over all taps.
    fn depth_per_part(&self) -> usize;

    /// Provides the rows `depth` of every tap of one or two panels, possibly written to `scratch`.
    fn part<'a>(
        &'a self,
        panels: &[usize],
        depth: Range<usize>,
        scratch: &'a mut Vec<f32>,
    ) -> FactorPart<'a, Self::Value>;
}

/// Some rows of every tap of one or two panels.
#[derive(Clone, Copy)]
pub(crate) struct FactorPart<'a, T> {
    /// Starts at the first row of the first panel.
    pub(crate) data: &'a [T],
    /// Rows from one tap to the next.
    pub(crate) rows_per_tap: usize,
    /// Values from one panel to the next.
    pub(crate) panel_stride: usize,
}

impl<T> FactorPart<'_, T> {
    pub(crate) fn right(&self) -> Right<T> {
        Right { data: self.data.as_ptr(), row_stride: PANEL, panel_stride: self.panel_stride }
    }
}

/// A right factor of `taps · depth` rows in panels of [`PANEL`] columns, zero-padded.
#[derive(Debug, Clone)]
pub(crate) struct Panels<T = f32> {
    data: Vec<T>,
    pub(crate) taps: usize,
    pub(crate) depth: usize,
    pub(crate) columns: usize,
}

impl<T: Stored> Panels<T> {
    pub(crate) fn pack(source: &[T], taps: usize, depth: usize, columns: usize, strides: Strides) -> Self {
        // Whether a column's values (depth, taps) are contiguous, as in a layer's weights.
        let whole_columns = strides.depth == taps && (taps == 1 || strides.tap == 1);
        Self::by_panel(taps, depth, columns, |panel, data| {
            let first = panel * PANEL;
            let width = PANEL.min(columns - first);
            if whole_columns {
                let column = |column| &source[column * strides.column..][..taps * depth];
                let columns: Vec<&[T]> = (first..first + width).map(column).collect();
                return transpose(&columns, taps, depth, data);
            }
            for (row, values) in data.as_chunks_mut::<PANEL>().0.iter_mut().enumerate() {
                let start = row / depth * strides.tap + row % depth * strides.depth;
                if strides.column == 1 {
                    let source = &source[start + first..];
                    match source.first_chunk() {
                        Some(whole) if width == PANEL => *values = *whole,
                        _ => values[..width].copy_from_slice(&source[..width]),
                    }
                    continue;
                }
                let values = &mut values[..width];
                for (lane, value) in values.iter_mut().enumerate() {
                    *value = source[start + (first + lane) * strides.column];
                }
            }
        })
    }

    /// Builds a factor whose panels, each `taps · depth` rows of [`PANEL`] values, `fill` writes.
    pub(crate) fn by_panel(
        taps: usize,
        depth: usize,
        columns: usize,
        fill: impl Fn(usize, &mut [T]) + Sync,
    ) -> Self {
        let panel_len = taps * depth * PANEL;
        let mut data = Box::<[T]>::new_uninit_slice(columns.div_ceil(PANEL) * panel_len);
        data.par_chunks_mut(panel_len.max(1))
            .enumerate()
            .with_min_len(VALUES_PER_TASK / panel_len.max(1))
            .for_each(|(panel, data)| {
                // Clear a panel at a time, so that it is in the cache when it is filled.
                data.fill(MaybeUninit::new(T::default()));
                // SAFETY: every value has just been written.
                fill(panel, unsafe { &mut *(std::ptr::from_mut(data) as *mut [T]) });
            });
        // SAFETY: every panel has been written.
        Self { data: unsafe { data.assume_init() }.into_vec(), taps, depth, columns }
    }

    /// Packs (depth, columns, taps) values with the taps reversed: a convolution's weights (out, in, kernel, kernel),
    /// rotated to map outputs to inputs.
    pub(crate) fn pack_turned(source: &[T], taps: usize, depth: usize, columns: usize) -> Self {
        assert_eq!(source.len(), taps * depth * columns);
        Self::by_panel(taps, depth, columns, |panel, data| {
            let first = panel * PANEL;
            let width = PANEL.min(columns - first);
            let rows = data.as_chunks_mut::<PANEL>().0;
            for (k, source) in source.chunks_exact((columns * taps).max(1)).enumerate() {
                let source = &source[first * taps..][..width * taps];
                for tap in 0..taps {
                    let row = &mut rows[(taps - 1 - tap) * depth + k];
                    row.iter_mut()
                        .zip(source[tap..].iter().step_by(taps))
                        .for_each(|(lane, value)| *lane = *value);
                }
            }
        })
    }

    /// The factor as a plain (taps, depth, columns) array.
    pub(crate) fn unpack(&self) -> Vec<f32> {
        let (rows, columns) = (self.taps * self.depth, self.columns);
        let mut out = vec![0f32; rows * columns];
        for (panel, data) in self.data.chunks_exact((rows * PANEL).max(1)).enumerate() {
            let first = panel * PANEL;
            let width = PANEL.min(columns - first);
            for (row, values) in data.chunks_exact(PANEL).enumerate() {
                let out = &mut out[row * columns + first..][..width];
                out.iter_mut().zip(values).for_each(|(out, value)| *out = value.widen());
            }
        }
        out
    }

    /// The rows of one panel after the other: of each tap, so many as the depth.
    pub(crate) fn rows(&self) -> &[[T; PANEL]] {
        self.data.as_chunks().0
    }

    pub(crate) fn right(&self) -> Right<T> {
        Right { data: self.data.as_ptr(), row_stride: PANEL, panel_stride: self.taps * self.depth * PANEL }
    }
}

impl<T: Stored> Factor for Panels<T> {
    type Value = T;

    const MAY_KEEP_FLOATS: bool = true;
    const ROWS_PER_TASK: usize = 96;

    fn size(&self) -> FactorSize {
        let Self { taps, depth, columns, .. } = *self;
        FactorSize { taps, depth, columns }
    }

    fn depth_per_part(&self) -> usize {
        self.depth
    }

    #[inline(always)]
    fn part<'a>(&'a self, panels: &[usize], depth: Range<usize>, _: &'a mut Vec<f32>) -> FactorPart<'a, T> {
        let panel_len = self.taps * self.depth * PANEL;
        let (first, last) = match panels {
            [first, .., last] => (*first, *last),
            [only] => (*only, *only),
            [] => (0, 0),
        };
        FactorPart {
            data: &self.data[first * panel_len..(last + 1) * panel_len][depth.start * PANEL..],
            rows_per_tap: self.depth,
            panel_stride: (last - first) * panel_len,
        }
    }
}

/// Transposes columns of (depth, taps) values, up to a panel, into lanes of (taps, depth) rows.
fn transpose<T: Stored>(columns: &[&[T]], taps: usize, depth: usize, panel: &mut [T]) {
    let rows = panel.as_chunks_mut::<PANEL>().0;
    let places = (0..depth).flat_map(|k| (0..taps).map(move |tap| tap * depth + k)).enumerate();
    match <[&[T]; PANEL]>::try_from(columns) {
        // Each row is assembled in registers and written at once.
        Ok(columns) => places.for_each(|(i, row)| rows[row] = columns.map(|column| column[i])),
        Err(_) => places.for_each(|(i, row)| {
            rows[row].iter_mut().zip(columns).for_each(|(lane, column)| *lane = column[i]);
        }),
    }
}
