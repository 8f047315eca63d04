//! Draws normal numbers like PyTorch on the CPU.

use std::f64::consts::PI;

use candle_core::{Device, Tensor};

use super::mt19937::Mt19937;
use super::{Noise, vector_math};
use crate::Result;

/// Values transformed together.
const BLOCK: usize = 16;

/// `torch.Generator().manual_seed(seed)`: [`Noise::normal`] equals `torch.randn(shape, generator=generator)` in f32,
/// bit for bit, on processors where PyTorch uses its AVX2 code: x86-64 ones of the last ten years. (On others,
/// PyTorch's own last bits differ.)
///
/// PyTorch 2 (`aten/src/ATen/native/cpu/DistributionTemplates.h`) draws fewer than 16 values one by one in f64, and
/// more of them in blocks in f32. So the first values of a large tensor are not those of a small one.
#[derive(Debug, Clone)]
pub struct TorchCpu {
    engine: Mt19937,
    /// The second value of a pair drawn one by one, returned next.
    spare: Option<f64>,
}

impl TorchCpu {
    /// Seeds the generator. PyTorch uses the lower 32 of the 64 bits.
    pub fn new(seed: u64) -> Self {
        Self { engine: Mt19937::new(seed), spare: None }
    }

    /// Draws `count` standard normal values.
    pub fn randn(&mut self, count: usize) -> Vec<f32> {
        if count < BLOCK {
            return (0..count).map(|_| self.single() as f32).collect();
        }
        let mut values: Vec<f32> = (0..count).map(|_| self.engine.uniform_f32()).collect();
        for block in values.chunks_exact_mut(BLOCK) {
            normal_block(block);
        }
        // The rest is less than a block, so the last 16 values are drawn again.
        if !count.is_multiple_of(BLOCK) {
            let last = &mut values[count - BLOCK..];
            last.iter_mut().for_each(|value| *value = self.engine.uniform_f32());
            normal_block(last);
        }
        values
    }

    /// One value of the Box–Muller transform, which makes two.
    fn single(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let angle = 2.0 * PI * self.engine.uniform_f64();
        let radius = (-2.0 * (-self.engine.uniform_f64()).ln_1p()).sqrt();
        self.spare = Some(radius * angle.sin());
        radius * angle.cos()
    }
}

impl Noise for TorchCpu {
    fn normal(&mut self, shape: &[usize]) -> Result<Tensor> {
        Ok(Tensor::from_vec(self.randn(shape.iter().product()), shape, &Device::Cpu)?)
    }
}

/// The Box–Muller transform of 16 uniform values: 8 radii and 8 angles.
fn normal_block(values: &mut [f32]) {
    let (radii, angles) = values.split_at_mut(BLOCK / 2);
    for (first, second) in radii.iter_mut().zip(angles) {
        let radius = (-2.0 * vector_math::ln(1.0 - *first)).sqrt();
        let (sine, cosine) = vector_math::sin_cos(std::f32::consts::TAU * *second);
        *first = radius * cosine;
        *second = radius * sine;
    }
}
