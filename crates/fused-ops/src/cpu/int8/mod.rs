//! Multiplies in int8 with i32 sums: weights quantized once per output channel, activations per row as they come.
//!
//! A row of activations `x` and a column of weights `w` become integers of −127 to 127 with a scale each, their
//! largest absolute value by 127. The integers' product is exact, so all kernels give the same bits, and is scaled
//! back in the epilogue. Dot-product instructions take one unsigned factor: activations are stored with 128 added,
//! and 128 times each column's sum is subtracted from the product.
//!
//! A few input channels may be much larger than the others, which would then round to zero. SmoothQuant (Xiao et al.
//! 2022, arXiv:2211.10438) divides the input's channels by factors that the weight's rows are multiplied by.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod engine;
mod line;
mod quantize;
mod weight;

pub(crate) use engine::engine;
pub(crate) use line::Quad;
pub(crate) use quantize::quantize_row;
pub(crate) use weight::Int8Weight;

#[cfg(test)]
mod tests;
