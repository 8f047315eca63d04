//! Draws the noise that images are made of as PyTorch does, so that a seed means the same image here and there.
//!
//! A [`Noise`] is handed through a run. The latents are drawn from it first, and then what a stochastic scheduler adds
//! in each step, in that order, as diffusers draws both from one generator.

mod batch;
mod mt19937;
mod noise;
mod philox;
mod rng;
mod torch_cpu;
mod torch_cuda;
mod vector_math;

pub use batch::{BatchPosition, Seeds};
pub use noise::Noise;
pub use rng::Rng;
pub use torch_cpu::TorchCpu;
pub use torch_cuda::TorchCuda;
