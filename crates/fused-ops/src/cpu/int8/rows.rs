//! Lays out a kernel's operands: rows of the left factor, and of the product.

use super::line::Line;
use crate::cpu::microkernel::PANEL;

/// A row of the product with two panels.
pub(super) type Products = [[i32; PANEL]; 2];

/// Some rows of a left factor, as kernels see them.
///
/// There is a start for each row, followed by `lines` valid lines.
pub(super) struct Rows<'a> {
    pub(super) starts: &'a [*const Line],
    /// The lines of a row.
    pub(super) lines: usize,
    /// The fours of values of a row that count; the weight is zero for the rest of its lines.
    pub(super) quads: usize,
}
