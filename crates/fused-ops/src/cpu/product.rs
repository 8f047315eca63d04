//! Matrix products whose left rows are gathered, split over the threads.

use super::elementwise::gelu;
use super::epilogue::Epilogue;
use super::kernel::{Block, Left, PANEL, Right};
use super::pack::{Factor, FactorSize, Panels, Strides};
use super::window::Window;
use super::{Shared, arch, vectorized, written};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Tasks that a thread should get, so that none waits long for another in the end.
const TASKS_PER_THREAD: usize = 16;
/// Pixels that a weight gradient gathers at a time.
const PIXELS_PER_PASS: usize = 128;
/// Rows of a weight gradient that one task computes.
const GRADIENT_ROWS_PER_TASK: usize = 48;

/// `epilogue(Σ_tap left[window(row, tap)] · panels[tap])` for every row, where `left` has rows of the panels' depth and a
/// row outside the window is zeros: (rows, the panels' columns).
pub(crate) fn gather_product<F: Factor>(
    left: &[f32],
    rows: usize,
    window: &Window,
    panels: &F,
    epilogue: &Epilogue,
) -> Vec<f32> {
    let columns = panels.size().columns;
    epilogue.check(rows, columns);
    let write = |out: &mut [MaybeUninit<f32>]| {
        let out = Shared::new(out);
        let arch = arch();
        for_each_part(left, rows, window, panels, columns.div_ceil(PANEL), |starts, rows, columns| {
            arch.dispatch(ProductTask { starts, panels, rows, columns, epilogue, out });
        });
    };
    // SAFETY: the parts cover the result.
    unsafe { written(rows * columns, write) }
}

/// `geglu(left · panels + bias)`, where the first half of the columns are values and the second half what gates them:
/// (rows, half of the panels' columns). A half must end where a panel does.
pub(crate) fn gated_product<F: Factor>(
    left: &[f32],
    rows: usize,
    panels: &F,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let FactorSize { taps, columns: both, .. } = panels.size();
    let columns = both / 2;
    assert!(taps == 1 && both.is_multiple_of(2 * PANEL));
    assert!(bias.is_none_or(|bias| bias.len() == both));
    let write = |out: &mut [MaybeUninit<f32>]| {
        let out = Shared::new(out);
        let arch = arch();
        for_each_part(left, rows, &Window::Same, panels, columns / PANEL, |starts, rows, columns| {
            arch.dispatch(GatedTask { starts, panels, rows, columns, bias, out });
        });
    };
    // SAFETY: the parts cover the result.
    unsafe { written(rows * columns, write) }
}

/// Cuts a result of `rows` × `panel_count` panels into parts and calls `part` for each, on all threads, with where the
/// left factor's rows start (for each row, each tap), the rows, and the panels.
fn for_each_part<F: Factor>(
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
    // Where rows are few, tasks also divide the columns, by pairs of panels.
    let row_tasks = rows.div_ceil(F::ROWS_PER_TASK);
    let splits = (TASKS_PER_THREAD * rayon::current_num_threads())
        .div_ceil(row_tasks)
        .clamp(1, panel_count.div_ceil(2));
    let panels_per_task = panel_count.div_ceil(splits).next_multiple_of(2);
    let column_tasks = panel_count.div_ceil(panels_per_task);
    (0..row_tasks * column_tasks).into_par_iter().with_max_len(1).for_each(|task| {
        let (row_task, column_task) = (task / column_tasks, task % column_tasks);
        let first = row_task * F::ROWS_PER_TASK;
        let count = F::ROWS_PER_TASK.min(rows - first);
        let mut starts = Vec::with_capacity(count * taps);
        window.gather(first..first + count, |row| {
            starts.push(match row {
                Some(row) => left[row * stride..][..depth].as_ptr(),
                None => zeros.as_ptr(),
            });
        });
        let first_panel = column_task * panels_per_task;
        part(&starts, first..first + count, first_panel..(first_panel + panels_per_task).min(panel_count));
    });
}

/// Some rows of a product, and some panels of its columns.
struct ProductTask<'a, F> {
    starts: &'a [*const f32],
    panels: &'a F,
    rows: Range<usize>,
    columns: Range<usize>,
    epilogue: &'a Epilogue<'a>,
    out: Shared,
}

impl<F: Factor> WithSimd for ProductTask<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let columns = self.panels.size().columns;
        let mut pairs = Pairs::new(self.panels, self.starts);
        for first in self.columns.clone().step_by(2) {
            let all = [first, first + 1];
            let pair = &all[..2.min(self.columns.end - first)];
            let first = first * PANEL;
            let count = (2 * PANEL).min(columns - first);
            let out = self.out.at(self.rows.start * columns + first);
            pairs.multiply(simd, self.rows.len(), pair, count, out, columns);
            for row in self.rows.clone() {
                // SAFETY: this task alone writes these columns of its rows, and they lie within the output.
                let values =
                    unsafe { std::slice::from_raw_parts_mut(self.out.at(row * columns + first), count) };
                self.epilogue.finish(row, first, columns, values);
            }
        }
    }
}

/// Some rows of a gated product, and some panels of its columns.
struct GatedTask<'a, F> {
    starts: &'a [*const f32],
    panels: &'a F,
    rows: Range<usize>,
    columns: Range<usize>,
    bias: Option<&'a [f32]>,
    out: Shared,
}

impl<F: Factor> WithSimd for GatedTask<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let half = self.panels.size().columns / 2;
        // A panel of values and, beside it, the one of their gates.
        let mut both = vec![[0f32; 2 * PANEL]; self.rows.len()];
        let mut pairs = Pairs::new(self.panels, self.starts);
        for panel in self.columns.clone() {
            let pair = [panel, half / PANEL + panel];
            let out = both.as_mut_ptr().cast();
            pairs.multiply(simd, self.rows.len(), &pair, 2 * PANEL, out, 2 * PANEL);
            let first = panel * PANEL;
            let mut bias = [[0f32; PANEL]; 2];
            if let Some(all) = self.bias {
                bias[0].copy_from_slice(&all[first..][..PANEL]);
                bias[1].copy_from_slice(&all[half + first..][..PANEL]);
            }
            for (row, both) in self.rows.clone().zip(&both) {
                let mut values = [0f32; PANEL];
                for lane in 0..PANEL {
                    let (value, gate) = (both[lane] + bias[0][lane], both[PANEL + lane] + bias[1][lane]);
                    values[lane] = value * gelu(gate);
                }
                let out = self.out.at(row * half + first).cast::<[f32; PANEL]>();
                // SAFETY: this task alone writes these columns of its rows, and they lie within the output.
                unsafe { out.write_unaligned(values) };
            }
        }
    }
}

/// The rows of one task times one pair of panels after the other, as much of their depth at a time as the factor gives.
struct Pairs<'a, F> {
    panels: &'a F,
    /// Of the left rows, as in [`Left::Rows`].
    starts: &'a [*const f32],
    /// The same, from where a part of the depth begins.
    part_starts: Vec<*const f32>,
    scratch: Vec<f32>,
}

impl<'a, F: Factor> Pairs<'a, F> {
    fn new(panels: &'a F, starts: &'a [*const f32]) -> Self {
        Self { panels, starts, part_starts: Vec::new(), scratch: Vec::new() }
    }

    /// Writes the product of all `rows` and one panel or two, `columns` in all, to `out`.
    #[inline(always)]
    fn multiply<S: Simd>(
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
        // Without depth there are still results to write: zeros.
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
            Block {
                left: Left::Rows { starts, taps, depth: count },
                right: self.panels.part(pair, part, &mut self.scratch).right(),
                rows,
                panels: 0..pair.len(),
                columns,
                accumulate: first > 0,
                out,
                out_stride,
            }
            .with_simd(simd);
        }
    }
}

/// Rows whose distance is a large power of two share a few sets of the cache and push each other out of it: a copy of
/// them a little further apart costs one pass and saves the misses of every later one.
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

/// The weight gradient of [`gather_product`]: `out[tap, k, column] = Σ_row left[window(row, tap), k] · grad[row, column]`.
/// `left` has rows of `depth` values, `grad` is (rows, columns) and `out` is (taps, depth, columns).
pub(crate) fn gather_gradient(
    left: &[f32],
    depth: usize,
    taps: usize,
    window: &Window,
    grad: &[f32],
    columns: usize,
    out: &mut [f32],
) {
    assert_eq!(out.len(), taps * depth * columns);
    if out.is_empty() {
        return;
    }
    let rows = grad.len() / columns;
    let panels = Panels::pack(grad, 1, rows, columns, Strides { tap: 0, depth: columns, column: 1 });
    if rows == 0 {
        return out.fill(0.);
    }
    let out = Shared(out.as_mut_ptr());
    let depth_tasks = depth.div_ceil(GRADIENT_ROWS_PER_TASK);
    let arch = arch();
    (0..taps * depth_tasks).into_par_iter().for_each(|task| {
        let (tap, first) = (task / depth_tasks, task % depth_tasks * GRADIENT_ROWS_PER_TASK);
        let count = GRADIENT_ROWS_PER_TASK.min(depth - first);
        let zeros = [0f32; GRADIENT_ROWS_PER_TASK];
        let mut starts = Vec::with_capacity(PIXELS_PER_PASS);
        for pass in (0..rows).step_by(PIXELS_PER_PASS) {
            starts.clear();
            window.gather_tap(pass..(pass + PIXELS_PER_PASS).min(rows), tap, |row| {
                starts.push(match row {
                    Some(row) => left[row * depth + first..][..count].as_ptr(),
                    None => zeros.as_ptr(),
                });
            });
            let right = panels.right();
            arch.dispatch(Block {
                left: Left::Columns { starts: &starts },
                right: Right { data: right.data.wrapping_add(pass * right.row_stride), ..right },
                rows: count,
                panels: 0..columns.div_ceil(PANEL),
                columns,
                accumulate: pass > 0,
                out: out.at((tap * depth + first) * columns),
                out_stride: columns,
            });
        }
    });
}

/// The sum of every column of a (rows, columns) matrix: a bias gradient.
pub(crate) fn column_sums(matrix: &[f32], columns: usize) -> Vec<f32> {
    let partial = |rows: &[f32]| {
        let mut sums = vec![0f32; columns];
        vectorized(
            #[inline(always)]
            || {
                for row in rows.chunks_exact(columns) {
                    sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
                }
            },
        );
        sums
    };
    let chunks: Vec<_> = matrix.par_chunks(columns * 512).map(partial).collect();
    let mut sums = vec![0f32; columns];
    for chunk in chunks {
        sums.iter_mut().zip(chunk).for_each(|(sum, value)| *sum += value);
    }
    sums
}

/// Adds to every row of each of `shifts.len() / columns` pictures its own row of `shifts`.
pub(crate) fn add_rows(x: &[f32], shifts: &[f32], columns: usize) -> Vec<f32> {
    if x.is_empty() {
        return Vec::new();
    }
    let picture = x.len() / (shifts.len() / columns);
    assert!(x.len().is_multiple_of(picture) && picture.is_multiple_of(columns));
    let rows_per_task = 64 * columns;
    let write = |out: &mut [MaybeUninit<f32>]| {
        for ((out, x), shift) in out.chunks_mut(picture).zip(x.chunks(picture)).zip(shifts.chunks(columns)) {
            out.par_chunks_mut(rows_per_task).zip(x.par_chunks(rows_per_task)).for_each(|(out, x)| {
                vectorized(
                    #[inline(always)]
                    || {
                        for (out, x) in out.chunks_exact_mut(columns).zip(x.chunks_exact(columns)) {
                            out.iter_mut()
                                .zip(x.iter().zip(shift))
                                .for_each(|(out, (x, shift))| _ = out.write(x + shift));
                        }
                    },
                );
            });
        }
    };
    // SAFETY: all rows of all pictures are written.
    unsafe { written(x.len(), write) }
}
