//! Multiplies by dot-product instructions that keep a row's sums with a panel in registers.

use super::kernel::{Products, Rows};
use super::line::{Group, Line};
use crate::cpu::microkernel::PANEL;

/// Dot-product instructions. Functions are inlined into [`multiply`], and that into a function for which the
/// instructions are enabled.
///
/// # Safety
/// All functions need a processor with the instructions, and valid pointers.
pub(crate) trait DotProducts {
    type Group: Group;
    /// The sums of a row with a panel.
    type Sums: Copy;
    /// A group of a row, for each column.
    type Left: Copy;
    /// A line of a panel.
    type Right: Copy;

    unsafe fn zeros() -> Self::Sums;

    unsafe fn left(group: *const Self::Group) -> Self::Left;

    unsafe fn right(line: *const Line<Self::Group>) -> Self::Right;

    unsafe fn multiply_add(sums: &mut Self::Sums, left: Self::Left, right: Self::Right);

    unsafe fn store(sums: Self::Sums, out: &mut [<Self::Group as Group>::Sum; PANEL]);
}

/// Writes the products of all rows with one or two panels, those of a row to `out[row · stride]`, in tiles of `ROWS`
/// rows by `PANELS` panels, whose sums fill the registers, and then smaller ones.
///
/// # Safety
/// As for [`Rows`], and the processor must have the instructions.
#[inline(always)]
pub(crate) unsafe fn multiply<D: DotProducts, const ROWS: usize, const PANELS: usize>(
    rows: &Rows<D::Group>,
    right: &[&[Line<D::Group>]],
    out: &mut [Products<D::Group>],
    stride: usize,
) {
    for (turn, right) in right.chunks(PANELS).enumerate() {
        let panel = turn * PANELS;
        // SAFETY: the caller guarantees rows and instructions.
        unsafe {
            match right.first_chunk::<PANELS>() {
                Some(right) => all_rows::<D, ROWS, PANELS>(rows, *right, panel, out, stride),
                None => all_rows::<D, ROWS, 1>(rows, [right[0]], panel, out, stride),
            }
        }
    }
}

/// Multiplies all rows by the panels from `panel` on.
///
/// # Safety
/// As for [`multiply`].
#[inline(always)]
unsafe fn all_rows<D: DotProducts, const ROWS: usize, const PANELS: usize>(
    rows: &Rows<D::Group>,
    right: [&[Line<D::Group>]; PANELS],
    panel: usize,
    out: &mut [Products<D::Group>],
    stride: usize,
) {
    let count = rows.count();
    let mut row = 0;
    // SAFETY: the caller guarantees the rows.
    unsafe {
        while row + ROWS <= count {
            tile::<D, ROWS, PANELS>(rows, row, right, &mut out[row * stride..], (panel, stride));
            row += ROWS;
        }
        while row + 4 <= count {
            tile::<D, 4, PANELS>(rows, row, right, &mut out[row * stride..], (panel, stride));
            row += 4;
        }
        while row < count {
            tile::<D, 1, PANELS>(rows, row, right, &mut out[row * stride..], (panel, stride));
            row += 1;
        }
    }
}

/// # Safety
/// As for [`multiply`], and there must be this many rows from `row` on.
#[inline(always)]
unsafe fn tile<D: DotProducts, const ROWS: usize, const PANELS: usize>(
    rows: &Rows<D::Group>,
    row: usize,
    right: [&[Line<D::Group>]; PANELS],
    out: &mut [Products<D::Group>],
    (panel, stride): (usize, usize),
) {
    // SAFETY: the caller guarantees the instructions.
    let mut sums = [[unsafe { D::zeros() }; PANELS]; ROWS];
    for tap in 0..rows.taps {
        let left = std::array::from_fn(|i| rows.starts[(row + i) * rows.taps + tap].cast());
        let right = right.map(|right| right[tap * rows.lines * PANEL..][..rows.groups].as_ptr());
        // SAFETY: the caller guarantees the rows' lines, and the panels have as many.
        sums = unsafe { multiply_add::<D, ROWS, PANELS>(sums, left, right, rows.groups) };
    }
    for (sums, out) in sums.iter().zip(out.iter_mut().step_by(stride)) {
        for (sum, out) in sums.iter().zip(&mut out[panel..]) {
            // SAFETY: the caller guarantees the instructions.
            unsafe { D::store(*sum, out) };
        }
    }
}

/// Adds the products of one tap. Sums are passed by value to stay in registers.
///
/// # Safety
/// The processor must have the instructions, and this many groups must be valid.
#[inline(always)]
unsafe fn multiply_add<D: DotProducts, const ROWS: usize, const PANELS: usize>(
    mut sums: [[D::Sums; PANELS]; ROWS],
    left: [*const D::Group; ROWS],
    right: [*const Line<D::Group>; PANELS],
    groups: usize,
) -> [[D::Sums; PANELS]; ROWS] {
    for group in 0..groups {
        // SAFETY: the caller guarantees instructions and groups.
        unsafe {
            let mut lines = [D::right(right[0].add(group)); PANELS];
            for panel in 0..PANELS {
                lines[panel] = D::right(right[panel].add(group));
            }
            for row in 0..ROWS {
                let (sums, left) = (&mut sums[row], D::left(left[row].add(group)));
                for panel in 0..PANELS {
                    D::multiply_add(&mut sums[panel], left, lines[panel]);
                }
            }
        }
    }
    sums
}

/// Performs a fixed number of operations on registers, and returns that number.
///
/// # Safety
/// The processor must have the instructions.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) unsafe fn operations<D: DotProducts>() -> u64 {
    use std::hint::black_box;
    const ROUNDS: usize = 20_000;
    const SUMS: usize = 12;
    let line = black_box(Line::<D::Group>::ZERO);
    // SAFETY: the caller guarantees the instructions.
    unsafe {
        let (left, right) = (D::left(&raw const line.0[0]), D::right(&raw const line));
        let mut sums = [D::zeros(); SUMS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                D::multiply_add(sum, left, right);
            }
        }
        black_box(sums);
    }
    (2 * Line::<D::Group>::VALUES * ROUNDS * SUMS) as u64
}
