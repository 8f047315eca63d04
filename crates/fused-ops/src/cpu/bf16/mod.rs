//! Multiplies in bf16 with f32 sums, on processors where this is faster than f32.
//!
//! Weights are packed once into *lines* of two rows of 16 columns: the operand of a dot-product instruction, and 16
//! of them are a matrix tile. Left factors are rounded once per layer. Sums, epilogues and results stay f32.

mod attention;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod engine;
mod left;
mod line;
mod portable;
mod product;
mod rows;
mod weight;

pub(crate) use attention::attention;
pub(crate) use engine::{Engine, engine};
pub(crate) use product::{linear_geglu, product};
pub(crate) use weight::Bf16Weight;

#[cfg(test)]
mod tests;
