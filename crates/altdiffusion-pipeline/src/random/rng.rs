//! Lists PyTorch's generators.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{Noise, TorchCpu, TorchCuda};
use crate::{Error, Result};

/// The PyTorch generators whose noise can be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rng {
    /// The CPU's, [`TorchCpu`].
    #[default]
    Cpu,
    /// A CUDA device's, [`TorchCuda`].
    Cuda,
}

impl Rng {
    /// The name in the records of web interfaces: their GPU is the GPU's own noise, and NV the same computed on the CPU.
    pub fn recorded_name(self) -> &'static str {
        match self {
            Self::Cpu => "CPU",
            Self::Cuda => "NV",
        }
    }

    /// Every generator.
    pub const ALL: [Self; 2] = [Self::Cpu, Self::Cuda];

    /// The option value: `cpu`, `cuda`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }

    /// The generator, seeded.
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
