//! The fused CPU kernels: plain slices in, plain slices out, no candle tensors.
//!
//! `unsafe` lives here alone. Every loop is written once and compiled for each instruction set that [`pulp`] knows;
//! the widest one that the machine has is picked at run time.

pub(crate) mod attention;
pub(crate) mod convolution;
pub(crate) mod elementwise;
pub(crate) mod kernel;
pub(crate) mod normalization;
pub(crate) mod pack;
pub(crate) mod product;
