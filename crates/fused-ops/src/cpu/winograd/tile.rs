//! Measures the tiles that are transformed.

use crate::cpu::microkernel::PANEL;

/// Pixels along a side of what a tile reads.
pub(super) const IN: usize = 6;
/// Pixels along a side of what a tile makes.
pub(super) const OUT: usize = 4;

/// Places along a side of a transformed tile, of an image that was doubled or of one as it is.
pub(super) const fn side(doubled: bool) -> usize {
    if doubled { 5 } else { IN }
}

/// Places of a transformed tile.
pub(super) const fn places(doubled: bool) -> usize {
    side(doubled) * side(doubled)
}

/// Columns whose products are in work at a time.
pub(super) const COLUMNS: usize = 2 * PANEL;
