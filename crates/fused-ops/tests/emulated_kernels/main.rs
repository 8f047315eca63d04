//! Runs the CUDA kernels without a GPU: their sources compiled for this machine, with checks for races, out-of-bounds
//! accesses and copies that were not waited for, compared with the reference on random input.
//!
//! Launches, sizes and parameters are the crate's own. `EMULATION_SEED` varies the input.

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

/// The crate's own launches, which do not depend on a device.
#[path = "../../src/cuda/launch/mod.rs"]
mod launch;

/// What the launches import from the crate.
mod shapes {
    pub(crate) use fused_ops::{Activation, Sinusoids};
}
