//! Defines the unit in which int8 factors are stored.

/// The values of a line.
pub(super) const LINE: usize = 64;

/// What is added to a left factor's values.
pub(super) const SHIFT: u8 = 128;

/// 64 values, a cache line: of a left factor 64 columns of a row, shifted to be unsigned; of a right factor four rows
/// of 16 columns, interleaved in fours, signed.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [u8; LINE]);

impl Line {
    pub(super) const ZERO: Self = Self([0; LINE]);
}

#[cfg(target_arch = "x86_64")]
crate::cpu::amx::tile_line!(Line, i32, "tdpbusd", 25);
