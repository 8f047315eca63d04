//! Matrix products whose left rows are gathered, split over the threads.

use super::kernel::{Block, Left, PANEL, Right};
use super::pack::{Panels, Strides};
use super::vectorized;
use super::window::Window;
use pulp::Arch;
use rayon::prelude::*;

/// Rows that one task multiplies: enough to read the right factor seldom, few enough to stay in the L2 cache.
const ROWS_PER_TASK: usize = 96;
/// Pixels that a weight gradient gathers at a time.
const PIXELS_PER_PASS: usize = 1024;
/// Rows of a weight gradient that one task computes.
const GRADIENT_ROWS_PER_TASK: usize = 48;

/// A place that several threads write, each its own part of it.
#[derive(Clone, Copy)]
struct Shared(*mut f32);
unsafe impl Send for Shared {}
unsafe impl Sync for Shared {}

impl Shared {
    fn at(self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }
}

/// A right factor that threads share for reading.
#[derive(Clone, Copy)]
struct SharedRight(Right);
unsafe impl Send for SharedRight {}
unsafe impl Sync for SharedRight {}

impl SharedRight {
    fn get(self) -> Right {
        self.0
    }
}

/// `out[row] = Σ_tap left[window(row, tap)] · panels[tap] + bias`, where `left` has rows of `panels.depth` values and a
/// row outside the window is zeros. `out` is (rows, panels.columns).
pub(crate) fn gather_product(
    left: &[f32],
    rows: usize,
    window: &Window,
    panels: &Panels,
    bias: Option<&[f32]>,
    out: &mut [f32],
) {
    let (taps, depth, columns) = (panels.taps, panels.depth, panels.columns);
    assert_eq!(out.len(), rows * columns);
    assert!(bias.is_none_or(|bias| bias.len() == columns));
    if out.is_empty() {
        return;
    }
    let zeros = vec![0f32; depth];
    let out = Shared(out.as_mut_ptr());
    let panel_count = columns.div_ceil(PANEL);
    // Where rows are few, tasks also divide the columns, by pairs of panels.
    let threads = rayon::current_num_threads();
    let row_tasks = rows.div_ceil(ROWS_PER_TASK);
    let splits = (4 * threads).div_ceil(row_tasks).clamp(1, panel_count.div_ceil(2));
    let panels_per_task = panel_count.div_ceil(splits).next_multiple_of(2);
    let column_tasks = panel_count.div_ceil(panels_per_task);
    let arch = Arch::new();
    (0..row_tasks * column_tasks).into_par_iter().for_each(|task| {
        let (row_task, column_task) = (task / column_tasks, task % column_tasks);
        let first = row_task * ROWS_PER_TASK;
        let count = ROWS_PER_TASK.min(rows - first);
        let mut starts = Vec::with_capacity(count * taps);
        window.gather(first..first + count, |row| {
            starts.push(match row {
                Some(row) => left[row * depth..][..depth].as_ptr(),
                None => zeros.as_ptr(),
            });
        });
        let first_panel = column_task * panels_per_task;
        arch.dispatch(Block {
            left: Left::Rows { starts: &starts, taps, depth },
            right: panels.right(),
            rows: count,
            panels: first_panel..(first_panel + panels_per_task).min(panel_count),
            columns,
            bias,
            accumulate: false,
            out: out.at(first * columns),
            out_stride: columns,
        });
    });
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
    // A right factor whose columns fill whole panels can be read where it lies.
    let packed = (!columns.is_multiple_of(PANEL))
        .then(|| Panels::pack(grad, 1, rows, columns, Strides { tap: 0, depth: columns, column: 1 }));
    let right = SharedRight(match &packed {
        Some(panels) => panels.right(),
        None => Right { data: grad.as_ptr(), row_stride: columns, panel_stride: PANEL },
    });
    out.fill(0.);
    let out = Shared(out.as_mut_ptr());
    let zeros = vec![0f32; depth];
    let depth_tasks = depth.div_ceil(GRADIENT_ROWS_PER_TASK);
    let arch = Arch::new();
    (0..taps * depth_tasks).into_par_iter().for_each(|task| {
        let (tap, first) = (task / depth_tasks, task % depth_tasks * GRADIENT_ROWS_PER_TASK);
        let mut starts = Vec::with_capacity(PIXELS_PER_PASS);
        for pass in (0..rows).step_by(PIXELS_PER_PASS) {
            starts.clear();
            window.gather_tap(pass..(pass + PIXELS_PER_PASS).min(rows), tap, |row| {
                starts.push(match row {
                    Some(row) => left[row * depth..(row + 1) * depth][first..].as_ptr(),
                    None => zeros[first..].as_ptr(),
                });
            });
            let right = right.get();
            arch.dispatch(Block {
                left: Left::Columns { starts: &starts },
                right: Right { data: right.data.wrapping_add(pass * right.row_stride), ..right },
                rows: GRADIENT_ROWS_PER_TASK.min(depth - first),
                panels: 0..columns.div_ceil(PANEL),
                columns,
                bias: None,
                accumulate: true,
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
