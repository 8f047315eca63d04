//! Defines the unit in which bf16 factors are stored.

use half::bf16;

/// The values of a line.
pub(super) const LINE: usize = 32;

/// 32 values, a cache line: of a left factor 32 columns of a row, of a right factor two rows of 16 columns,
/// interleaved in pairs.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [bf16; LINE]);

impl Line {
    pub(super) const ZERO: Self = Self([bf16::ZERO; LINE]);
}

#[cfg(target_arch = "x86_64")]
crate::cpu::amx::tile_line!(Line, f32, "tdpbf16ps", 22);

/// Rounds to the nearest bf16, ties to even. Branch-free, so that it is vectorized.
#[inline(always)]
pub(super) fn round(value: f32) -> bf16 {
    let bits = value.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16;
    bf16::from_bits(if value.is_nan() { 0x7fc0 } else { rounded })
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn values_are_rounded_as_half_rounds_them() {
        for bits in (0..=u16::MAX).map(|high| u32::from(high) << 16) {
            // Around ties, and at both ends.
            for low in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let value = f32::from_bits(bits | low);
                let (found, expected) = (round(value), bf16::from_f32(value));
                assert!(
                    found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(),
                    "{value}: {found}, expected {expected}"
                );
            }
        }
    }
}
