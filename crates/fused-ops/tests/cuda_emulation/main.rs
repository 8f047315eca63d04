//! The CUDA kernels, run without a GPU: their sources compiled for this machine, under checks that find races, reads
//! and writes past the end, and copies that nobody waited for, against the reference operations on random input.
//!
//! The launches, sizes and parameters are those of the crate itself. `EMULATION_SEED` gives other input.

mod attention;
mod checker;
mod elementwise;
mod emulator;
mod normalization;
mod rounding;

#[path = "../../src/cuda/attention.rs"]
mod attention_launch;
#[path = "../../src/cuda/denoise.rs"]
mod denoise_launch;
#[path = "../../src/cuda/epilogue.rs"]
mod epilogue_launch;
#[path = "../../src/cuda/group_norm.rs"]
mod group_norm_launch;
#[path = "../../src/cuda/launch.rs"]
mod launch;
#[path = "../../src/cuda/layer_norm.rs"]
mod layer_norm_launch;
