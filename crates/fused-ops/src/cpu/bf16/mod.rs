//! Multiplies in bf16 with sums in f32, where the processor has instructions that make this faster than f32.
//!
//! Weights are packed once, in *lines* of two rows of 16 columns, which is what a dot-product instruction takes and, 16 of
//! them, what a matrix tile takes. Left factors are rounded once per layer. Sums, epilogues and results stay f32.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod engine;
mod left;
mod line;
mod portable;
mod product;
mod weight;

pub(crate) use engine::{Engine, engine};
pub(crate) use product::{linear_geglu, product};
pub(crate) use weight::Bf16Weight;

#[cfg(test)]
mod tests;
