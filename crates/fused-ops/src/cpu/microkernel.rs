//! Multiplies a tile of rows by a few columns held in registers: the inner loop of all matrix products.
//!
//! The right factor lies in *panels* of [`PANEL`] columns, so that a step along the shared dimension reads whole
//! vectors. The left factor is never copied: a tile finds its rows through pointers, so a convolution (whose rows are
//! shifted pixels, and zeros outside the image) is the same loop as a linear layer. This is the indirect convolution
//! algorithm (Dukhan, arXiv 1907.02129).

use half::{bf16, f16};
use pulp::Simd;

/// Columns per panel: one AVX-512 vector, two AVX2 or four NEON ones.
pub(crate) const PANEL: usize = 16;

/// A storage type of weights. All arithmetic is in f32.
pub(crate) trait Stored: Copy + Default + Send + Sync + 'static {
    /// Converts to f32. Half types must be finite.
    fn widen(self) -> f32;
}

impl Stored for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

impl Stored for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

impl Stored for f16 {
    /// Moving sign, exponent and fraction to their places in an f32 gives the value times 2⁻¹¹². Unlike
    /// [`f16::to_f32`] this is branch-free, so it vectorizes on any machine.
    #[inline(always)]
    fn widen(self) -> f32 {
        const SCALE: f32 = f32::from_bits((127 + 112) << 23);
        let moved = i32::from(self.to_bits() as i16) << 13; // the sign fills the rest of the exponent
        f32::from_bits(moved as u32 & 0x8fff_e000) * SCALE
    }
}

impl Stored for i8 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from(self)
    }
}

/// The right factor: `value(k, column) = data[column / 16 · panel_stride + k · row_stride + column % 16]`.
#[derive(Clone, Copy)]
pub(crate) struct Right<T> {
    pub(crate) data: *const T,
    pub(crate) row_stride: usize,
    pub(crate) panel_stride: usize,
}

/// How to find the left factor's values.
#[derive(Clone, Copy)]
pub(crate) enum Left<'a> {
    /// `value(row, tap · depth + k) = *starts[row · taps + tap].add(k)`: products and convolutions.
    Rows { starts: &'a [*const f32], taps: usize, depth: usize },
    /// `value(row, k) = *starts[k].add(row)`: the transposed left factor of a weight gradient.
    Columns { starts: &'a [*const f32] },
}

/// `out[row, column] (+)= Σₖ left(row, k) · right(k, column)` for a block of rows and panels.
pub(crate) struct Block<'a, T> {
    pub(crate) left: Left<'a>,
    pub(crate) right: Right<T>,
    pub(crate) rows: usize,
    pub(crate) panels: std::ops::Range<usize>,
    /// Columns of the whole right factor; the last panel may hold fewer than [`PANEL`].
    pub(crate) columns: usize,
    pub(crate) accumulate: bool,
    pub(crate) out: *mut f32,
    pub(crate) out_stride: usize,
}

impl<T: Stored> Block<'_, T> {
    /// Computes the block.
    ///
    /// # Safety
    /// It reads everything that `left` and `right` describe for `rows` × `panels` (whole panels of `right`, even if
    /// `columns` ends inside one), and writes `out[row · out_stride + column]`, which it also reads when
    /// accumulating. All of these must be valid, and no other thread may touch the same part of `out`.
    #[inline(always)]
    pub(crate) unsafe fn run<S: Simd>(self, simd: S) {
        // Accumulators fill the registers: 24 of AVX-512's 32, 12 of AVX2's 16, 24 of NEON's 32.
        // SAFETY: the caller guarantees every pointer.
        unsafe {
            match S::F32_LANES {
                16 => {
                    let pairs = self.panels.len() / 2;
                    for pair in 0..pairs {
                        self.all_rows::<S, 12, 2>(simd, self.panels.start + 2 * pair);
                    }
                    if self.panels.len() % 2 == 1 {
                        self.all_rows::<S, 16, 1>(simd, self.panels.end - 1);
                    }
                }
                8 => self.panels.clone().for_each(|panel| self.all_rows::<S, 6, 2>(simd, panel)),
                4 => self.panels.clone().for_each(|panel| self.all_rows::<S, 6, 4>(simd, panel)),
                _ => self.panels.clone().for_each(|panel| self.all_rows::<S, 2, 16>(simd, panel)),
            }
        }
    }

    /// All rows, in tiles of `ROWS` and then smaller ones.
    ///
    /// # Safety
    /// See [`Block::run`].
    #[inline(always)]
    unsafe fn all_rows<S: Simd, const ROWS: usize, const VECTORS: usize>(&self, simd: S, panel: usize) {
        let mut row = 0;
        // SAFETY: the rows are the block's.
        unsafe {
            while row + ROWS <= self.rows {
                self.tile::<S, ROWS, VECTORS>(simd, row, panel);
                row += ROWS;
            }
            while row + 4 <= self.rows {
                self.tile::<S, 4, VECTORS>(simd, row, panel);
                row += 4;
            }
            while row < self.rows {
                self.tile::<S, 1, VECTORS>(simd, row, panel);
                row += 1;
            }
        }
    }

    /// `ROWS` rows of one or two panels.
    ///
    /// # Safety
    /// See [`Block::run`]; the rows must be the block's.
    #[inline(always)]
    unsafe fn tile<S: Simd, const ROWS: usize, const VECTORS: usize>(
        &self,
        simd: S,
        row: usize,
        panel: usize,
    ) {
        let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
        // SAFETY: the caller guarantees what the factors name.
        unsafe {
            let right = self.right.data.add(panel * self.right.panel_stride);
            match self.left {
                Left::Rows { starts, taps, depth } => {
                    for tap in 0..taps {
                        let mut rows = [std::ptr::null(); ROWS];
                        for (i, start) in rows.iter_mut().enumerate() {
                            *start = *starts.get_unchecked((row + i) * taps + tap);
                        }
                        let right = right.add(tap * depth * self.right.row_stride);
                        sums = self.multiply_add(simd, sums, depth, right, |k, i| *rows[i].add(k));
                    }
                }
                Left::Columns { starts } => {
                    let value = |k: usize, i: usize| *starts.get_unchecked(k).add(row + i);
                    sums = self.multiply_add(simd, sums, starts.len(), right, value);
                }
            }
            self.store(simd, &sums, row, panel);
        }
    }

    /// Adds the products of `depth` steps to the sums. They are passed by value: behind a reference the compiler
    /// stored every one of them in each step of [`Left::Columns`], which took more than half of the time.
    ///
    /// # Safety
    /// `right` must be valid for as many rows, and `left` for its steps.
    #[inline(always)]
    unsafe fn multiply_add<S: Simd, const ROWS: usize, const VECTORS: usize>(
        &self,
        simd: S,
        mut sums: [[S::f32s; VECTORS]; ROWS],
        depth: usize,
        mut right: *const T,
        left: impl Fn(usize, usize) -> f32,
    ) -> [[S::f32s; VECTORS]; ROWS] {
        for k in 0..depth {
            let mut b = [simd.splat_f32s(0.0); VECTORS];
            for (v, b) in b.iter_mut().enumerate() {
                let column = v * S::F32_LANES;
                let offset = column / PANEL * self.right.panel_stride + column % PANEL;
                // SAFETY: the row is valid for whole panels.
                *b = unsafe { load::<S, T>(right.add(offset)) };
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = simd.splat_f32s(left(k, i));
                for v in 0..VECTORS {
                    sums[v] = simd.mul_add_e_f32s(a, b[v], sums[v]);
                }
            }
            right = right.wrapping_add(self.right.row_stride);
        }
        sums
    }

    /// Writes a tile's sums, or adds them to the output.
    ///
    /// # Safety
    /// See [`Block::run`]; the rows must be the block's.
    #[inline(always)]
    unsafe fn store<S: Simd, const ROWS: usize, const VECTORS: usize>(
        &self,
        simd: S,
        sums: &[[S::f32s; VECTORS]; ROWS],
        row: usize,
        panel: usize,
    ) {
        let first = panel * PANEL;
        for (i, sums) in sums.iter().enumerate() {
            for (v, &sum) in sums.iter().enumerate() {
                let column = first + v * S::F32_LANES;
                let out = self.out.wrapping_add((row + i) * self.out_stride + column);
                if column + S::F32_LANES <= self.columns {
                    let mut sum = sum;
                    // SAFETY: the columns are those of the block, which the caller guarantees to be valid.
                    unsafe {
                        if self.accumulate {
                            sum = simd.add_f32s(sum, out.cast::<S::f32s>().read_unaligned());
                        }
                        out.cast::<S::f32s>().write_unaligned(sum);
                    }
                } else {
                    let mut lanes = [0f32; PANEL];
                    // SAFETY: a vector is no longer than a panel.
                    unsafe { lanes.as_mut_ptr().cast::<S::f32s>().write_unaligned(sum) };
                    for (lane, value) in lanes.iter().enumerate().take(self.columns.saturating_sub(column)) {
                        // SAFETY: the columns are those of the block, which the caller guarantees to be valid.
                        unsafe {
                            let out = out.add(lane);
                            let before = if self.accumulate { *out } else { 0. };
                            *out = value + before;
                        }
                    }
                }
            }
        }
    }
}

/// One vector of stored values.
///
/// # Safety
/// That many values must be valid there.
#[inline(always)]
unsafe fn load<S: Simd, T: Stored>(values: *const T) -> S::f32s {
    let mut lanes = [0f32; PANEL];
    for (lane, value) in lanes[..S::F32_LANES].iter_mut().enumerate() {
        // SAFETY: the caller guarantees it.
        *value = unsafe { *values.add(lane) }.widen();
    }
    // SAFETY: a vector is no longer than a panel.
    unsafe { lanes.as_ptr().cast::<S::f32s>().read_unaligned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finite_half_is_widened_exactly() {
        for bits in 0..=u16::MAX {
            let (short, brain) = (f16::from_bits(bits), bf16::from_bits(bits));
            if short.is_finite() {
                assert_eq!(short.widen().to_bits(), short.to_f32().to_bits(), "{short}");
            }
            if brain.is_finite() {
                assert_eq!(brain.widen().to_bits(), brain.to_f32().to_bits(), "{brain}");
            }
        }
    }
}
