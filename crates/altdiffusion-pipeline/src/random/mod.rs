//! The noise that images are made of, as PyTorch draws it: so that a seed means the same image here and there.
//!
//! A [`Noise`] is handed through a run. The latents are drawn from it first, and then what a stochastic scheduler adds
//! in each step, in that order, as diffusers draws both from one generator.

mod batch;
mod mt19937;
mod philox;
mod torch_cpu;
mod torch_cuda;
mod vector_math;

use std::{fmt, str::FromStr};

use candle_core::Tensor;

pub use batch::{BatchPosition, Seeds};
pub use torch_cpu::TorchCpu;
pub use torch_cuda::TorchCuda;

use crate::{Error, Result};

/// A source of standard normal numbers.
pub trait Noise {
    /// The next tensor of them, f32, on the CPU. A shape may have any number of dimensions.
    ///
    /// # Errors
    /// When there is no more noise of this shape.
    fn normal(&mut self, shape: &[usize]) -> Result<Tensor>;

    /// Noise for what all images of a batch have in common, such as the one that they begin with, whose shape is (1, …):
    /// once, unless each image has a generator of its own, and then (images, …).
    ///
    /// # Errors
    /// As [`Noise::normal`].
    fn normal_for_all(&mut self, shape: &[usize]) -> Result<Tensor> {
        self.normal(shape)
    }
}

/// The generators whose noise PyTorch draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Rng {
    /// That of the CPU, [`TorchCpu`].
    #[default]
    Cpu,
    /// That of CUDA devices, [`TorchCuda`].
    Cuda,
}

impl Rng {
    /// Every generator.
    pub const ALL: [Self; 2] = [Self::Cpu, Self::Cuda];

    /// The name, as a user gives it: `cpu`, `cuda`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }

    /// Its noise from the start.
    pub fn with_seed(self, seed: u64) -> Box<dyn Noise> {
        match self {
            Self::Cpu => Box::new(TorchCpu::new(seed)),
            Self::Cuda => Box::new(TorchCuda::new(seed)),
        }
    }
}

impl fmt::Display for Rng {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Rng {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|rng| rng.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::option("rng", format!("{name:?} is not known; expected one of {known}"))
        })
    }
}
