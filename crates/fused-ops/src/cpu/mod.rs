//! Computes on plain slices, without candle tensors.
//!
//! Every loop is written once and compiled for each instruction set that [`pulp`] knows; the widest one available is
//! picked at run time. All `unsafe` of the CPU code is in this module.

pub(crate) mod attention;
pub(crate) mod attention_gradient;
pub(crate) mod bf16;
pub(crate) mod conv2d;
pub(crate) mod dot_products;
pub(crate) mod elementwise;
pub(crate) mod epilogue;
pub(crate) mod geglu;
pub(crate) mod group_norm;
pub(crate) mod int8;
pub(crate) mod layer_norm;
pub(crate) mod linear_geglu;
pub(crate) mod lines;
pub(crate) mod matmul;
pub(crate) mod matmul_gradient;
pub(crate) mod microkernel;
mod output;
pub(crate) mod pack;
pub(crate) mod packed_weight;
pub(crate) mod peak;
pub(crate) mod quantized;
#[cfg(test)]
mod sanitizer_tests;
pub(crate) mod shift_channels;
pub(crate) mod simd;
pub(crate) mod window;
mod winograd;
