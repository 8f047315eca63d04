//! Lays out a kernel's operands: rows of the left factor, and of the product.

use super::line::Line;
use crate::cpu::microkernel::PANEL;

/// A row of the product with two panels.
pub(super) type Products = [[f32; PANEL]; 2];

/// Some rows of a left factor, as kernels see them.
///
/// There is a start for each tap of each row, followed by `lines` valid lines.
pub(super) struct Rows<'a> {
    pub(super) starts: &'a [*const Line],
    pub(super) taps: usize,
    /// The lines of a row for each tap.
    pub(super) lines: usize,
    /// The pairs of values of a row for each tap; the rest of its lines is zero.
    pub(super) pairs: usize,
}

impl Rows<'_> {
    pub(super) fn count(&self) -> usize {
        self.starts.len() / self.taps
    }
}
