//! Draws PyTorch's random noise, so that a seed gives the same image as there.
//!
//! A run draws from a [`Noise`]: first the latents, then what a stochastic scheduler adds in each step, in the order
//! in which diffusers draws both from one generator.

mod batch;
mod mt19937;
mod noise;
mod own_noise;
mod philox;
mod rng;
mod torch_cpu;
mod torch_cuda;
mod vector_math;

pub use batch::{BatchPosition, Seeds};
pub use noise::Noise;
pub use own_noise::NoiseFactory;
pub use rng::Rng;
pub use torch_cpu::TorchCpu;
pub use torch_cuda::TorchCuda;
