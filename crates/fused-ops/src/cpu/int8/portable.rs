//! Multiplies with instructions of every processor, as the reference for the other kernels.

use super::line::Line;
use super::rows::{Products, Rows};
use crate::cpu::microkernel::PANEL;
use crate::cpu::simd::vectorized;

/// Writes the products of all rows with one or two panels.
///
/// # Safety
/// As for [`Rows`].
pub(super) unsafe fn multiply(rows: &Rows, right: &[&[Line]], out: &mut [Products]) {
    vectorized(
        #[inline(always)]
        || {
            for (start, out) in rows.starts.iter().zip(out.iter_mut()) {
                // SAFETY: the caller guarantees the lines of each start.
                let left = unsafe { std::slice::from_raw_parts(*start, rows.lines) };
                let quads = left.iter().flat_map(|line| line.0.as_chunks::<4>().0);
                for (right, out) in right.iter().zip(out) {
                    let mut sums = [0i32; PANEL];
                    for (quad, right) in quads.clone().zip(&right[..rows.quads]) {
                        let quad = quad.map(i32::from);
                        for (sum, right) in sums.iter_mut().zip(right.0.as_chunks::<4>().0) {
                            let right = right.map(|value| i32::from(value.cast_signed()));
                            let product = quad[0] * right[0]
                                + quad[1] * right[1]
                                + quad[2] * right[2]
                                + quad[3] * right[3];
                            *sum = sum.wrapping_add(product);
                        }
                    }
                    *out = sums;
                }
            }
        },
    );
}
