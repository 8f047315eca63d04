//! Multiplies one vector with many, for searching.

use crate::cpu;

/// The numbers that rows are stored as, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowNumbers {
    /// Half precision. Numbers that are not finite come out as large ones.
    F16,
    /// Single precision.
    F32,
}

impl RowNumbers {
    /// The bytes of one number.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

/// The product of `query` with each of the `rows`, which follow each other, on one thread.
///
/// # Panics
/// If the query is empty, or `rows` are not exactly as many as `products`.
pub fn dot_products(query: &[f32], rows: &[u8], numbers: RowNumbers, products: &mut [f32]) {
    assert!(!query.is_empty(), "vectors without numbers");
    assert_eq!(rows.len(), query.len() * numbers.bytes() * products.len(), "the length of all rows");
    match numbers {
        RowNumbers::F16 => cpu::dot_products::of_halves(query, rows, products),
        RowNumbers::F32 => cpu::dot_products::of_singles(query, rows, products),
    }
}
