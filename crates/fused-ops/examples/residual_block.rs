//! Times a residual block of Stable Diffusion's decoder with default settings.
//!
//! ```sh
//! cargo run --release -p fused-ops --example residual_block
//! FUSED_OPS_FREED_MEMORY=return cargo run --release -p fused-ops --example residual_block
//! ```
//!
//! Prints the settings and the median time of a pass over (1, 256, 256, 128).

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use fused_ops::{Conv2d, Conv2dOptions, Epilogue, GroupNorm, Padding, Settings};
use std::collections::HashMap;
use std::time::Instant;

const CHANNELS: usize = 128;
const SIDE: usize = 256;
const PASSES: usize = 15;

fn main() -> Result<()> {
    let random = |shape: &[usize]| Tensor::randn(0f32, 0.05, shape, &Device::Cpu);
    let mut tensors = HashMap::new();
    for name in ["norm1", "norm2"] {
        tensors.insert(format!("{name}.weight"), random(&[CHANNELS])?);
        tensors.insert(format!("{name}.bias"), random(&[CHANNELS])?);
    }
    for name in ["conv1", "conv2"] {
        tensors.insert(format!("{name}.weight"), random(&[CHANNELS, CHANNELS, 3, 3])?);
        tensors.insert(format!("{name}.bias"), random(&[CHANNELS])?);
    }
    let vb = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    let options = Conv2dOptions { padding: Padding::same(1), ..Conv2dOptions::default() };
    let norms = [vb.pp("norm1"), vb.pp("norm2")].map(|vb| GroupNorm::new(32, CHANNELS, 1e-6, vb));
    let convs = [vb.pp("conv1"), vb.pp("conv2")].map(|vb| Conv2d::new(CHANNELS, CHANNELS, 3, options, vb));
    let ([norm1, norm2], [conv1, conv2]) = (norms, convs);
    let (norm1, norm2, conv1, conv2) = (norm1?, norm2?, conv1?, conv2?);

    let x = random(&[1, SIDE, SIDE, CHANNELS])?; // (batch, height, width, channels)
    let mut seconds = Vec::with_capacity(PASSES);
    for _ in 0..PASSES {
        let start = Instant::now();
        let hidden = conv1.forward(&norm1.forward_silu(&x)?)?;
        conv2.forward_with(&norm2.forward_silu(&hidden)?, &Epilogue::residual(&x))?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    println!("{:?}", Settings::current().map_err(candle_core::Error::from)?);
    println!("{:.4} s", seconds[PASSES / 2]);
    Ok(())
}
