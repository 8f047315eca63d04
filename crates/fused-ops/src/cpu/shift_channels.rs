//! Adds a row of shifts to each image.

use super::output::written;
use super::simd::vectorized;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Adds to every row of each of `shifts.len() / columns` images its row of `shifts`.
pub(crate) fn shift_channels(x: &[f32], shifts: &[f32], columns: usize) -> Vec<f32> {
    if x.is_empty() {
        return Vec::new();
    }
    let image = x.len() / (shifts.len() / columns);
    assert!(x.len().is_multiple_of(image) && image.is_multiple_of(columns));
    let rows_per_task = 64 * columns;
    let write = |out: &mut [MaybeUninit<f32>]| {
        for ((out, x), shift) in out.chunks_mut(image).zip(x.chunks(image)).zip(shifts.chunks(columns)) {
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
    // SAFETY: all rows of all images are written.
    unsafe { written(x.len(), write) }
}
