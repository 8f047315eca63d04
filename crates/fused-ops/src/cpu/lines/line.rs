//! Defines the unit in which factors are stored.

use crate::cpu::microkernel::{PANEL, Stored};

/// A few values that follow each other along the shared dimension, 32 bits in all: an instruction adds their products
/// with as many others to one sum.
pub(crate) trait Group: Copy + Send + Sync + 'static {
    /// A value of a weight.
    type Value: Stored;
    /// What products are summed in, of 32 bits.
    type Sum: Copy + Default + Send + Sync + 'static;

    /// The number of values.
    const LEN: usize;
    const ZERO: Self;

    /// A value of a group of a weight.
    fn get(self, place: usize) -> Self::Value;

    fn set(&mut self, place: usize, value: Self::Value);

    /// Adds the products of a left factor's group with a weight's: what the instructions of every kernel do.
    fn multiply_add(sum: Self::Sum, left: Self, right: Self) -> Self::Sum;
}

/// 64 bytes, a cache line: of a left factor a part of a row, of a right factor a group of each of 16 columns.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line<G>(pub(crate) [G; PANEL]);

impl<G: Group> Line<G> {
    pub(crate) const ZERO: Self = Self([G::ZERO; PANEL]);
    /// The values of a line.
    pub(crate) const VALUES: usize = PANEL * G::LEN;
}
