//! Defines the groups in which bf16 factors are stored.

use crate::cpu::lines::{self, Group};
use crate::cpu::microkernel::Stored;
use half::bf16;

/// Two values: of a left factor two columns of a row, of a right factor two rows of a column.
pub(crate) type Pair = [bf16; 2];

pub(super) type Line = lines::Line<Pair>;

impl Group for Pair {
    type Value = bf16;
    type Sum = f32;

    const LEN: usize = 2;
    const ZERO: Self = [bf16::ZERO; 2];

    #[inline(always)]
    fn get(self, place: usize) -> bf16 {
        self[place]
    }

    #[inline(always)]
    fn set(&mut self, place: usize, value: bf16) {
        self[place] = value;
    }

    #[inline(always)]
    fn multiply_add(sum: f32, left: Self, right: Self) -> f32 {
        sum + (left[0].widen() * right[0].widen() + left[1].widen() * right[1].widen())
    }
}

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
