//! Computes the gradients of weights and biases.

use super::microkernel::{Block, Left, PANEL, Right};
use super::output::SharedOutput;
use super::pack::{Panels, Strides};
use super::simd::{arch, vectorized};
use super::window::Window;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Pixels per pass of a weight gradient.
const PIXELS_PER_PASS: usize = 128;
/// Rows of a weight gradient per task.
const GRADIENT_ROWS_PER_TASK: usize = 48;

/// The weight gradient of [`gather_product`](super::matmul::gather_product): `out[tap, k, column] = Σ_row left[window(row, tap), k] · grad[row, column]`.
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
    let out = SharedOutput::of_values(out);
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
            arch.dispatch(Pass {
                starts: &starts,
                panels: &panels,
                first: pass,
                rows: count,
                out,
                row: tap * depth + first,
            });
        }
    });
}

/// Some rows of a weight gradient, with the contribution of some pixels.
struct Pass<'a> {
    /// For each pixel, the start of these rows' values.
    starts: &'a [*const f32],
    /// The result's gradient, from pixel `first` on.
    panels: &'a Panels,
    first: usize,
    rows: usize,
    out: SharedOutput<'a>,
    /// The first output row.
    row: usize,
}

impl WithSimd for Pass<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (right, columns) = (self.panels.right(), self.panels.columns);
        let block = Block {
            left: Left::Columns { starts: self.starts },
            right: Right { data: right.data.wrapping_add(self.first * right.row_stride), ..right },
            rows: self.rows,
            panels: 0..columns.div_ceil(PANEL),
            columns,
            accumulate: self.first > 0,
            out: self.out.at(self.row * columns),
            out_stride: columns,
        };
        // SAFETY: each start is followed by a value for each row, the pixels are rows of the packed gradient, and this task
        // alone writes its rows of the output.
        unsafe { block.run(simd) };
    }
}

/// Sums each column of a (rows, columns) matrix: a bias gradient.
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
