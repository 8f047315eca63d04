//! Describes the instructions that multiply lines, and their operands.

#[cfg(target_arch = "x86_64")]
use super::amx::Tiles;
use super::line::{Group, Line};
use crate::cpu::microkernel::PANEL;
use crate::cpu::peak::on_all_threads;
use crate::settings::Instructions;
use std::fmt;

/// A row of the product with two panels.
pub(crate) type Products<G> = [[<G as Group>::Sum; PANEL]; 2];

/// Some rows of a left factor.
///
/// There is a start for each tap of each row, followed by `lines` valid lines.
pub(crate) struct Rows<'a, G> {
    pub(crate) starts: &'a [*const Line<G>],
    pub(crate) taps: usize,
    /// The lines of a row for each tap.
    pub(crate) lines: usize,
    /// The groups of a row for each tap that count; the weight is zero for the rest of its lines.
    pub(crate) groups: usize,
}

impl<G> Rows<'_, G> {
    pub(crate) fn count(&self) -> usize {
        self.starts.len() / self.taps
    }
}

type MultiplyRows<G> = unsafe fn(&Rows<G>, &[&[Line<G>]], &mut [Products<G>], usize);
#[cfg(target_arch = "x86_64")]
type MultiplyTiles<G> = unsafe fn(&Tiles<G>, &[&[Line<G>]], &mut [Products<G>], usize);

/// The function that writes the products of all rows with one or two panels, those of a row to `out[row · stride]`, by
/// the form in which it takes the rows.
pub(crate) enum Multiply<G: Group> {
    Rows(MultiplyRows<G>),
    #[cfg(target_arch = "x86_64")]
    Tiles(MultiplyTiles<G>),
}

/// The instructions that multiply lines. Whoever hands out a kernel has asked whether the processor supports it.
pub(crate) struct Kernel<G: Group> {
    pub(crate) name: &'static str,
    /// The narrowest setting that they belong to.
    pub(crate) instructions: Instructions,
    pub(crate) is_supported: fn() -> bool,
    pub(crate) multiply: Multiply<G>,
    /// Performs a fixed number of operations on registers, and returns that number; `None` for kernels without dot
    /// products.
    pub(crate) operations: Option<unsafe fn() -> u64>,
}

impl<G: Group> Kernel<G> {
    /// The maximum operations per second of the instructions on all threads.
    pub(crate) fn peak_operations(&self) -> Option<f64> {
        let operations = self.operations?;
        // SAFETY: the processor supports the kernel.
        Some(on_all_threads(|| unsafe { operations() }))
    }

    /// Prepares rows for [`Prepared::multiply`].
    ///
    /// # Safety
    /// The rows must be as [`Rows`] requires while the result lives.
    pub(crate) unsafe fn prepare<'a>(&self, rows: Rows<'a, G>) -> Prepared<'a, G> {
        match self.multiply {
            Multiply::Rows(multiply) => Prepared::Rows(rows, multiply),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the caller guarantees the rows.
            Multiply::Tiles(multiply) => Prepared::Tiles(unsafe { Tiles::new(&rows) }, multiply),
        }
    }
}

impl<G: Group> fmt::Debug for Kernel<G> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Rows in the form that a kernel needs, with its function.
pub(crate) enum Prepared<'a, G: Group> {
    Rows(Rows<'a, G>, MultiplyRows<G>),
    #[cfg(target_arch = "x86_64")]
    Tiles(Tiles<G>, MultiplyTiles<G>),
}

impl<G: Group> Prepared<'_, G> {
    /// Writes the products of all rows with one or two panels, those of a row to `out[row · stride]`.
    ///
    /// # Safety
    /// The panels must have 16 lines for each line of a row, and `out` must have space for as many rows, rounded up to
    /// a multiple of 32.
    pub(crate) unsafe fn multiply(&self, right: &[&[Line<G>]], out: &mut [Products<G>], stride: usize) {
        // SAFETY: `prepare` got valid rows, the processor supports its kernel, and the caller guarantees the rest.
        unsafe {
            match self {
                Self::Rows(rows, multiply) => multiply(rows, right, out, stride),
                #[cfg(target_arch = "x86_64")]
                Self::Tiles(tiles, multiply) => multiply(tiles, right, out, stride),
            }
        }
    }
}
