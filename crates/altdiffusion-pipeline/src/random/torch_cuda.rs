//! Draws normal numbers like PyTorch on a CUDA device.

use candle_core::{Device, Tensor};

use super::Noise;
use super::philox::philox4x32;
use crate::Result;

/// 2⁻³², and the factor from 32 bits to an angle.
const UNIT: f32 = 2.328_306_4e-10;
const ANGLE: f32 = UNIT * std::f32::consts::TAU;

/// `torch.Generator("cuda").manual_seed(seed)`, computed on the CPU: [`Noise::normal`] equals
/// `torch.randn(shape, generator=generator)` in f32, up to the last digits, because the GPU's sine is a fast
/// approximation.
///
/// PyTorch uses a thread per value: value i of call c is the first of the four normal numbers that cuRAND
/// (`curand_normal4`) makes from Philox at the counter (c, i), with the seed as the key. A call advances the
/// generator's offset by 4, which is one in the counter. This holds while the GPU has a thread per value: up to 270
/// 336 values on an H100, and 43 008 on smaller cards of the 30 series; the latents of 512 × 512 pixels are 16 384.
/// Beyond that PyTorch's values depend on the GPU, and this generator still counts one thread per value.
#[derive(Debug, Clone)]
pub struct TorchCuda {
    seed: u64,
    calls: u64,
}

impl TorchCuda {
    /// Seeds the generator, with all 64 bits.
    pub fn new(seed: u64) -> Self {
        Self { seed, calls: 0 }
    }

    /// Draws `count` standard normal values.
    pub fn randn(&mut self, count: usize) -> Vec<f32> {
        let call = self.calls;
        // PyTorch starts no kernel for an empty tensor.
        if count > 0 {
            self.calls = self.calls.wrapping_add(1);
        }
        let key = [self.seed as u32, (self.seed >> 32) as u32];
        (0..count as u64)
            .map(|value| {
                let counter = [call as u32, (call >> 32) as u32, value as u32, (value >> 32) as u32];
                let [first, second, ..] = philox4x32(counter, key);
                box_muller(first, second)
            })
            .collect()
    }
}

impl Noise for TorchCuda {
    fn normal(&mut self, shape: &[usize]) -> Result<Tensor> {
        Ok(Tensor::from_vec(self.randn(shape.iter().product()), shape, &Device::Cpu)?)
    }
}

/// The first of two normal numbers from 64 random bits: `_curand_box_muller` in curand_normal.h.
fn box_muller(radius: u32, angle: u32) -> f32 {
    // In (0, 1] and (0, 2π]: half a step is added, since the integers start at 0.
    let uniform = (radius as f32).mul_add(UNIT, UNIT / 2.0);
    let angle = (angle as f32).mul_add(ANGLE, ANGLE / 2.0);
    let radius = (-2.0 * f64::from(uniform).ln()).sqrt();
    (radius * f64::from(angle).sin()) as f32
}
