//! Defines the sizes of Winograd tiles.

use crate::cpu::microkernel::PANEL;

/// Side of a tile's input, in pixels.
pub(super) const IN: usize = 6;
/// Side of a tile's output, in pixels.
pub(super) const OUT: usize = 4;

/// Side of a transformed tile, for a doubled image or a plain one.
pub(super) const fn side(doubled: bool) -> usize {
    if doubled { 5 } else { IN }
}

/// Values of a transformed tile, per channel.
pub(super) const fn places(doubled: bool) -> usize {
    side(doubled) * side(doubled)
}

/// Columns of products computed at a time.
pub(super) const COLUMNS: usize = 2 * PANEL;
