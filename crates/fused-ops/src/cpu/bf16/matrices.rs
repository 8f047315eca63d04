//! Multiplies by instructions for small matrices: two rows of four values by two columns of four.

use super::line::{Line, Pair};
use crate::cpu::lines::{Products, Rows};
use crate::cpu::microkernel::PANEL;

/// Instructions on vectors of 128 bits. Functions are inlined into [`multiply`], and that into a function for which the
/// instructions are enabled.
///
/// # Safety
/// All functions need a processor with the instructions, and valid pointers.
pub(super) trait Matrices {
    /// Two rows or two columns of four values, one after the other.
    type Factor: Copy;
    /// Two rows of two sums, one after the other.
    type Sums: Copy;

    unsafe fn zeros() -> Self::Sums;

    /// Two pairs of each of two rows.
    unsafe fn rows(rows: [*const Pair; 2]) -> Self::Factor;

    /// Four columns of two lines: the first two, and the others.
    unsafe fn columns(lines: [*const Pair; 2]) -> [Self::Factor; 2];

    unsafe fn multiply_add(sums: &mut Self::Sums, left: Self::Factor, right: Self::Factor);

    /// Writes two rows of four sums, from those of the first two columns and of the others.
    unsafe fn store(sums: [Self::Sums; 2], out: [*mut f32; 2]);
}

/// Writes the products of all rows with one or two panels, those of a row to `out[row · stride]`, in tiles of 6 rows by
/// a panel, whose 24 sums fill the registers, and then smaller ones.
///
/// # Safety
/// As for [`Rows`], and the processor must have the instructions.
#[inline(always)]
pub(super) unsafe fn multiply<M: Matrices>(
    rows: &Rows<Pair>,
    right: &[&[Line]],
    out: &mut [Products<Pair>],
    stride: usize,
) {
    for (panel, right) in right.iter().enumerate() {
        let mut row = 0;
        while row < rows.count() {
            // SAFETY: the caller guarantees rows and instructions.
            unsafe {
                if rows.count() - row > 4 {
                    tile::<M, 3>(rows, row, right, out, (panel, stride));
                    row += 6;
                } else {
                    tile::<M, 1>(rows, row, right, out, (panel, stride));
                    row += 2;
                }
            }
        }
    }
}

/// Multiplies twice as many rows as `COUNT` by a panel. The last row may stand for rows that do not exist.
///
/// # Safety
/// As for [`multiply`].
#[inline(always)]
unsafe fn tile<M: Matrices, const COUNT: usize>(
    rows: &Rows<Pair>,
    row: usize,
    right: &[Line],
    out: &mut [Products<Pair>],
    (panel, stride): (usize, usize),
) {
    let last = rows.count() - 1;
    let places: [[usize; 2]; COUNT] =
        std::array::from_fn(|i| [row + 2 * i, row + 2 * i + 1].map(|row| row.min(last)));
    // SAFETY: the caller guarantees the instructions.
    let mut sums = [[unsafe { M::zeros() }; PANEL / 2]; COUNT];
    for tap in 0..rows.taps {
        let left = places.map(|pair| pair.map(|row| rows.starts[row * rows.taps + tap].cast::<Pair>()));
        let lines = rows.lines * PANEL;
        let right = right[tap * lines..][..lines].as_ptr().cast::<Pair>();
        // SAFETY: rows and panels have whole lines, and an even number of pairs, which are zero after the last.
        sums = unsafe { multiply_add::<M, COUNT>(sums, left, right, rows.groups.div_ceil(2)) };
    }
    assert!(out.len() > last * stride && panel < 2);
    let out = out.as_mut_ptr().cast::<f32>().wrapping_add(panel * PANEL);
    for (places, sums) in places.iter().zip(&sums) {
        for (i, sums) in sums.as_chunks::<2>().0.iter().enumerate() {
            let out = places.map(|row| out.wrapping_add(row * stride * 2 * PANEL + 4 * i));
            // SAFETY: there is space for the panel's products of these rows.
            unsafe { M::store(*sums, out) };
        }
    }
}

/// Adds the products of one tap. Sums are passed by value to stay in registers.
///
/// # Safety
/// The processor must have the instructions, and this many times two pairs must be valid.
#[inline(always)]
unsafe fn multiply_add<M: Matrices, const COUNT: usize>(
    mut sums: [[M::Sums; PANEL / 2]; COUNT],
    rows: [[*const Pair; 2]; COUNT],
    right: *const Pair,
    steps: usize,
) -> [[M::Sums; PANEL / 2]; COUNT] {
    for step in 0..steps {
        // SAFETY: the caller guarantees instructions and pairs.
        unsafe {
            let mut left = [M::rows(rows[0].map(|row| row.add(2 * step))); COUNT];
            for i in 1..COUNT {
                left[i] = M::rows(rows[i].map(|row| row.add(2 * step)));
            }
            for i in 0..PANEL / 4 {
                let line = right.add(2 * step * PANEL + 4 * i);
                let [first, second] = M::columns([line, line.add(PANEL)]);
                for (sums, left) in sums.iter_mut().zip(&left) {
                    M::multiply_add(&mut sums[2 * i], *left, first);
                    M::multiply_add(&mut sums[2 * i + 1], *left, second);
                }
            }
        }
    }
    sums
}
