//! Multiplies with instructions of every processor, as the reference for the other kernels.

use super::line::Line;
use super::rows::{Products, Rows};
use crate::cpu::microkernel::{PANEL, Stored};

/// Writes the products of all rows with one or two panels.
///
/// # Safety
/// As for [`Rows`].
pub(super) unsafe fn multiply(rows: &Rows, right: &[&[Line]], out: &mut [Products], stride: usize) {
    for (starts, out) in rows.starts.chunks_exact(rows.taps).zip(out.iter_mut().step_by(stride)) {
        for (right, out) in right.iter().zip(out) {
            *out = [0f32; PANEL];
            for (start, right) in starts.iter().zip(right.chunks_exact(rows.lines * 16)) {
                for (line, right) in right.chunks_exact(16).enumerate() {
                    // SAFETY: the caller guarantees the lines of each start.
                    let left = unsafe { &*start.add(line) };
                    for (pair, right) in left.0.as_chunks::<2>().0.iter().zip(right) {
                        let columns = out.iter_mut().zip(right.0.as_chunks::<2>().0);
                        columns.for_each(|(sum, right)| {
                            *sum += pair[0].widen() * right[0].widen() + pair[1].widen() * right[1].widen();
                        });
                    }
                }
            }
        }
    }
}
