//! Multiplies in bf16 with f32 sums, on processors where this is faster than f32.
//!
//! Left factors are rounded once per layer. Sums, epilogues and results stay f32.

#[cfg(target_arch = "x86_64")]
mod amx;
mod attention;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod engine;
mod line;
#[cfg(any(test, target_arch = "aarch64"))]
mod matrices;
#[cfg(target_arch = "aarch64")]
mod neon;
mod weight;

pub(crate) use attention::attention;
pub(crate) use engine::{Engine, engine};
pub(crate) use weight::Bf16Weight;

#[cfg(test)]
mod tests;
