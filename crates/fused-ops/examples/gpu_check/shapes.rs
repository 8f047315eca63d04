//! Lists the models' shapes and odd ones, with random tensors and layers for them.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use fused_ops::{Conv2d, Conv2dOptions, Padding};
use std::collections::HashMap;

pub(crate) const DTYPES: [DType; 2] = [DType::F16, DType::BF16];

/// Half the distance from 1 to the next number.
pub(crate) fn unit(dtype: DType) -> f64 {
    if dtype == DType::F16 { 1. / 2048. } else { 1. / 256. }
}

pub(crate) fn name(dtype: DType) -> &'static str {
    if dtype == DType::F16 { "f16" } else { "bf16" }
}

/// The shape of an attention: with its own keys, or those of the queries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttentionShape {
    pub(crate) batch: usize,
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) heads: usize,
    pub(crate) head_dim: usize,
}

pub(crate) const fn own(batch: usize, tokens: usize, heads: usize, head_dim: usize) -> AttentionShape {
    AttentionShape { batch, queries: tokens, keys: tokens, heads, head_dim }
}

pub(crate) const fn cross(
    batch: usize,
    queries: usize,
    keys: usize,
    heads: usize,
    head_dim: usize,
) -> AttentionShape {
    AttentionShape { batch, queries, keys, heads, head_dim }
}

/// Stable Diffusion 1.x and 2.x at 512 × 512 with guidance, XLM-R large, CLIP ViT-L.
pub(crate) const MODEL_SHAPES: [AttentionShape; 12] = [
    own(2, 4096, 8, 40),
    own(2, 1024, 8, 80),
    own(2, 256, 8, 160),
    own(2, 64, 8, 160),
    own(2, 4096, 5, 64),
    cross(2, 4096, 21, 8, 40),
    cross(2, 4096, 77, 8, 40),
    cross(2, 1024, 21, 8, 80),
    cross(2, 256, 21, 8, 160),
    cross(2, 4096, 21, 5, 64),
    own(8, 77, 16, 64),
    own(1, 257, 16, 64),
];

/// Lengths that are not a multiple of any tile.
pub(crate) fn odd_shapes() -> impl Iterator<Item = AttentionShape> {
    [40, 64, 80, 160].into_iter().flat_map(|head_dim| {
        [1, 2, 15, 16, 17, 63, 65, 77, 129].into_iter().flat_map(move |tokens| {
            [own(2, tokens, 2, head_dim), cross(1, tokens, 21, 2, head_dim), cross(1, 5, tokens, 2, head_dim)]
        })
    })
}

pub(crate) fn random(shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
    // Rounded on the CPU, so that both sides get the same values.
    Tensor::randn(0f32, 1., shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)
}

pub(crate) fn f64_on_cpu(x: &Tensor) -> Result<Tensor> {
    x.to_device(&Device::Cpu)?.to_dtype(DType::F64)
}

/// A convolution of channels-last images, (batch, side, side, channels).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) batch: usize,
    pub(crate) side: usize,
    pub(crate) channels: usize,
    pub(crate) out_channels: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) upsample: bool,
}

pub(crate) const fn window(
    batch: usize,
    side: usize,
    channels: usize,
    out_channels: usize,
    kernel: usize,
) -> Window {
    Window { batch, side, channels, out_channels, kernel, stride: 1, upsample: false }
}

impl Window {
    pub(crate) fn options(&self) -> Conv2dOptions {
        let padding = Padding::same(self.kernel / 2);
        Conv2dOptions { stride: self.stride, padding, upsample: self.upsample }
    }

    /// Weight and bias, scaled so that results are about 1.
    pub(crate) fn parameters(&self, dtype: DType, device: &Device) -> Result<[Tensor; 2]> {
        let Self { channels, out_channels, kernel, .. } = *self;
        let scale = 1. / ((kernel * kernel * channels) as f64).sqrt();
        let weight = random(&[out_channels, channels, kernel, kernel], DType::F32, &Device::Cpu)?;
        let weight = (weight * scale)?.to_dtype(dtype)?.to_device(device)?;
        Ok([weight, random(&[out_channels], dtype, device)?])
    }

    pub(crate) fn layer(&self, parameters: &[Tensor; 2], dtype: DType, device: &Device) -> Result<Conv2d> {
        let Self { channels, out_channels, kernel, .. } = *self;
        Conv2d::new(channels, out_channels, kernel, self.options(), vb(parameters, dtype, device))
    }
}

/// The UNet's at 512 × 512 with guidance, and the VAE's.
pub(crate) const MODEL_WINDOWS: [Window; 8] = [
    window(2, 64, 320, 320, 3),
    window(2, 32, 640, 640, 3),
    window(2, 16, 1280, 1280, 3),
    window(2, 8, 1280, 1280, 3),
    window(2, 64, 960, 320, 3),
    window(2, 64, 960, 320, 1),
    Window { upsample: true, ..window(2, 32, 640, 640, 3) },
    window(1, 512, 128, 128, 3),
];

pub(crate) const SMALL_WINDOWS: [Window; 7] = [
    window(2, 9, 40, 24, 3),
    window(1, 1, 8, 8, 3),
    window(2, 8, 4, 320, 3),
    window(1, 16, 64, 3, 3),
    window(2, 4, 640, 160, 3),
    Window { stride: 2, ..window(2, 8, 32, 128, 3) },
    Window { upsample: true, ..window(1, 5, 24, 40, 3) },
];

pub(crate) fn layers(channels: usize, dtype: DType, device: &Device) -> Result<[Tensor; 2]> {
    Ok([random(&[channels], dtype, device)?, random(&[channels], dtype, device)?])
}

pub(crate) fn vb([weight, bias]: &[Tensor; 2], dtype: DType, device: &Device) -> VarBuilder<'static> {
    let tensors =
        [("weight", weight), ("bias", bias)].map(|(name, tensor)| (name.to_owned(), tensor.clone()));
    VarBuilder::from_tensors(HashMap::from(tensors), dtype, device)
}
