//! The CUDA kernels, run without a GPU: their sources compiled for this machine, under checks that find races, reads
//! and writes past the end, and copies that nobody waited for, against the reference operations on random input.
//!
//! The launches, sizes and parameters are those of the crate itself. `EMULATION_SEED` gives other input.

mod attention;
mod checker;
mod convolution;
mod driver;
mod elementwise;
mod emulator;
mod normalization;
mod rounding;

/// Those of the crate itself, which know nothing of a device.
#[path = "../../src/cuda/launches/mod.rs"]
mod launches;
