//! Multiplies matrices with gathered left rows, on all threads.

use super::epilogue::SliceEpilogue;
use super::microkernel::{Block, Left, PANEL};
use super::output::{SharedOutput, written};
use super::pack::{Factor, FactorSize};
use super::simd::arch;
use super::window::Window;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Tasks per thread, to balance the load.
const TASKS_PER_THREAD: usize = 16;

/// Computes `epilogue(Σ_tap left[window(row, tap)] · panels[tap])` for every row: (rows, the panels' columns). `left`
/// has rows of the panels' depth, and rows outside the window are zeros.
pub(crate) fn gather_product<F: Factor>(
    left: &[f32],
    rows: usize,
    window: &Window,
    panels: &F,
    epilogue: &SliceEpilogue,
) -> Vec<f32> {
    let columns = panels.size().columns;
    epilogue.check(rows, columns);
    let write = |out: &mut [MaybeUninit<f32>]| {
        let out = SharedOutput::new(out);
        let arch = arch();
        for_each_part(left, rows, window, panels, columns.div_ceil(PANEL), |starts, rows, columns| {
            arch.dispatch(ProductTask { starts, panels, rows, columns, epilogue, out });
        });
    };
    // SAFETY: the parts cover the result.
    unsafe { written(rows * columns, write) }
}

/// Splits a result of `rows` × `panel_count` panels into parts and calls `part` for each, on all threads, with the
/// left factor's row starts (per row and tap), the rows, and the panels.
pub(super) fn for_each_part<F: Factor>(
    left: &[f32],
    rows: usize,
    window: &Window,
    panels: &F,
    panel_count: usize,
    part: impl Fn(&[*const f32], Range<usize>, Range<usize>) + Sync,
) {
    let FactorSize { taps, depth, .. } = panels.size();
    if rows == 0 || panel_count == 0 {
        return;
    }
    let zeros = vec![0f32; depth];
    let padded = matches!(window, Window::Same).then(|| spread_rows(left, depth)).flatten();
    let (left, stride) = match &padded {
        Some(padded) => (padded.as_slice(), depth + PANEL),
        None => (left, depth),
    };
    Parts { rows, panels: panel_count, rows_per_task: F::ROWS_PER_TASK }.for_each(|rows, panels| {
        let mut starts = Vec::with_capacity(rows.len() * taps);
        window.gather(rows.clone(), |row| {
            starts.push(match row {
                Some(row) => left[row * stride..][..depth].as_ptr(),
                None => zeros.as_ptr(),
            });
        });
        part(&starts, rows, panels);
    });
}

/// A product that is cut into parts, each of some rows and some panels.
pub(super) struct Parts {
    pub(super) rows: usize,
    pub(super) panels: usize,
    pub(super) rows_per_task: usize,
}

impl Parts {
    /// Calls `part` for each, on all threads. Panels come in pairs.
    pub(super) fn for_each(self, part: impl Fn(Range<usize>, Range<usize>) + Sync) {
        let Self { rows, panels, rows_per_task } = self;
        if rows == 0 || panels == 0 {
            return;
        }
        // Where rows are few, tasks also divide the columns, by pairs of panels.
        let row_tasks = rows.div_ceil(rows_per_task);
        let splits = (TASKS_PER_THREAD * rayon::current_num_threads())
            .div_ceil(row_tasks)
            .clamp(1, panels.div_ceil(2));
        let panels_per_task = panels.div_ceil(splits).next_multiple_of(2);
        let column_tasks = panels.div_ceil(panels_per_task);
        (0..row_tasks * column_tasks).into_par_iter().with_max_len(1).for_each(|task| {
            let (first_row, first_panel) =
                (task / column_tasks * rows_per_task, task % column_tasks * panels_per_task);
            part(
                first_row..rows.min(first_row + rows_per_task),
                first_panel..panels.min(first_panel + panels_per_task),
            );
        });
    }
}

/// One task: some rows of a product and some panels of its columns.
struct ProductTask<'a, F> {
    starts: &'a [*const f32],
    panels: &'a F,
    rows: Range<usize>,
    columns: Range<usize>,
    epilogue: &'a SliceEpilogue<'a>,
    out: SharedOutput<'a>,
}

impl<F: Factor> WithSimd for ProductTask<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let columns = self.panels.size().columns;
        // SAFETY: `for_each_part` gives the starts of all taps of these rows, each of the panels' depth.
        let mut pairs = unsafe { Pairs::new(self.panels, self.starts) };
        for first in self.columns.clone().step_by(2) {
            let all = [first, first + 1];
            let pair = &all[..2.min(self.columns.end - first)];
            let first = first * PANEL;
            let count = (2 * PANEL).min(columns - first);
            let out = self.out.at(self.rows.start * columns + first);
            // SAFETY: this task alone writes these columns of its rows, which lie within the output.
            unsafe { pairs.multiply(simd, self.rows.len(), pair, count, out, columns) };
            for row in self.rows.clone() {
                // SAFETY: the product has just been written, and this task alone has these columns of its rows.
                let values = unsafe { self.out.part(row * columns + first, count) };
                self.epilogue.finish(row, first, columns, values);
            }
        }
    }
}

/// Multiplies a task's rows by one pair of panels after the other, over as much of the depth at a time as the factor
/// provides.
pub(super) struct Pairs<'a, F> {
    panels: &'a F,
    /// Starts of the left rows, as in [`Left::Rows`].
    starts: &'a [*const f32],
    /// The same, at the start of the current part of the depth.
    part_starts: Vec<*const f32>,
    scratch: Vec<f32>,
}

impl<'a, F: Factor> Pairs<'a, F> {
    /// # Safety
    /// Each of `starts` must be valid for the panels' depth, and there must be one for each tap of each row.
    pub(super) unsafe fn new(panels: &'a F, starts: &'a [*const f32]) -> Self {
        Self { panels, starts, part_starts: Vec::new(), scratch: Vec::new() }
    }

    /// Writes the product of all `rows` with one or two panels, `columns` in all, to `out`.
    ///
    /// # Safety
    /// There must be this many rows, and `out` must be valid for them and not accessed by others.
    #[inline(always)]
    pub(super) unsafe fn multiply<S: Simd>(
        &mut self,
        simd: S,
        rows: usize,
        pair: &[usize],
        columns: usize,
        out: *mut f32,
        out_stride: usize,
    ) {
        let FactorSize { taps, depth, .. } = self.panels.size();
        let step = self.panels.depth_per_part().max(1);
        // Even without depth, zeros must be written.
        for first in (0..depth.max(1)).step_by(step) {
            let part = first..depth.min(first + step);
            let count = part.len();
            let starts = if first == 0 {
                self.starts
            } else {
                self.part_starts.clear();
                self.part_starts.extend(self.starts.iter().map(|start| start.wrapping_add(first)));
                &self.part_starts
            };
            let block = Block {
                left: Left::Rows { starts, taps, depth: count },
                right: self.panels.part(pair, part, &mut self.scratch).right(),
                rows,
                panels: 0..pair.len(),
                columns,
                accumulate: first > 0,
                out,
                out_stride,
            };
            // SAFETY: whoever made this guarantees the left rows, the factor gives whole panels of that depth, and the caller
            // guarantees the output.
            unsafe { block.run(simd) };
        }
    }
}

/// Rows whose distance is a large power of two compete for a few cache sets. Copying them slightly further apart
/// costs one pass and saves the misses of all later ones.
fn spread_rows(rows: &[f32], len: usize) -> Option<Vec<f32>> {
    const ALIASING: usize = 512; // values: 2 KiB
    if len == 0 || !len.is_multiple_of(ALIASING) {
        return None;
    }
    let spread = |out: &mut [MaybeUninit<f32>]| {
        let rows = rows.par_chunks(len).with_min_len(8);
        out.par_chunks_mut(len + PANEL).zip(rows).for_each(|(out, row)| {
            let (out, between) = out.split_at_mut(len);
            out.iter_mut().zip(row).for_each(|(out, value)| _ = out.write(*value));
            between.fill(MaybeUninit::zeroed());
        });
    };
    // SAFETY: every row is written, and what lies between it and the next.
    Some(unsafe { written(rows.len() / len * (len + PANEL), spread) })
}
