//! Draws numbers that are the same in every run.

use candle_core::{Device, Tensor, Var};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// A generator of test input.
pub struct Random(ChaCha8Rng);

impl Random {
    /// The generator of this seed.
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Numbers from −1 to 1.
    pub fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.0.random_range(-1f32..1.)).collect()
    }

    /// A tensor of numbers from −1 to 1.
    pub fn uniform(&mut self, shape: &[usize]) -> Tensor {
        Tensor::from_vec(self.values(shape.iter().product()), shape, &Device::Cpu).unwrap()
    }

    /// The same as a variable, for gradients.
    pub fn variable(&mut self, shape: &[usize]) -> Var {
        Var::from_tensor(&self.uniform(shape)).unwrap()
    }

    /// A tensor of standard normal numbers.
    pub fn normal(&mut self, shape: &[usize]) -> Tensor {
        let values: Vec<f32> =
            (0..shape.iter().product()).map(|_| StandardNormal.sample(&mut self.0)).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }
}

/// Standard normal numbers of a seed.
pub fn normal(seed: u64, shape: &[usize]) -> Tensor {
    Random::new(seed).normal(shape)
}
