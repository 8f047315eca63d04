//! Defines the groups in which int8 factors are stored.

use crate::cpu::lines::{self, Group};

/// What is added to a left factor's values.
pub(super) const SHIFT: u8 = 128;

/// Four values: of a left factor four columns of a row, shifted to be unsigned; of a right factor four rows of a column,
/// signed.
pub(crate) type Quad = [u8; 4];

pub(super) type Line = lines::Line<Quad>;

impl Group for Quad {
    type Value = i8;
    type Sum = i32;

    const LEN: usize = 4;
    const ZERO: Self = [0; 4];

    #[inline(always)]
    fn get(self, place: usize) -> i8 {
        self[place].cast_signed()
    }

    #[inline(always)]
    fn set(&mut self, place: usize, value: i8) {
        self[place] = value.cast_unsigned();
    }

    #[inline(always)]
    fn multiply_add(sum: i32, left: Self, right: Self) -> i32 {
        let left = left.map(i32::from);
        let right = right.map(|value| i32::from(value.cast_signed()));
        let product = left[0] * right[0] + left[1] * right[1] + left[2] * right[2] + left[3] * right[3];
        sum.wrapping_add(product)
    }
}
