//! The CUDA kernels, run without a GPU: their sources compiled for this machine, under checks that find races, reads
//! and writes past the end, and copies that nobody waited for, against the reference operations on fresh random input.
//!
//! The launches, sizes and parameters are those of the crate itself. The seed is printed; `EMULATION_SEED` repeats it.

mod attention;
mod checker;
mod emulator;

#[path = "../../src/cuda/attention.rs"]
mod attention_launch;
#[path = "../../src/cuda/launch.rs"]
mod launch;
