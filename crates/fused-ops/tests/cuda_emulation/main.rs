//! Runs the CUDA kernels without a GPU: their sources compiled for this machine, under checks that find races, reads and
//! writes past the end, and copies that nobody waited for, against the reference operations on random input.
//!
//! The launches, sizes and parameters are those of the crate itself. `EMULATION_SEED` gives other input.

#![allow(unsafe_code, reason = "calls C")]

mod attention;
mod checker;
mod conv2d;
mod driver;
mod emulator;
mod epilogue;
mod geglu;
mod group_norm;
mod layer_norm;
mod linear_step;
mod rounding;
mod timestep_embedding;
mod to_bytes;

/// Those of the crate itself, which know nothing of a device.
#[path = "../../src/cuda/launch/mod.rs"]
mod launch;

/// What the launches take from the crate.
mod shapes {
    pub(crate) use fused_ops::{Activation, Sinusoids};
}
