//! Halves and doubles the resolution (diffusers' `Downsample2D` and `Upsample2D`).

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use fused_ops::{Conv2d, Conv2dOptions, Padding};

use super::layout::same_size;

/// A 3 × 3 convolution of stride 2.
#[derive(Debug, Clone)]
pub(crate) struct Downsample2D {
    conv: Conv2d,
}

impl Downsample2D {
    /// `padding` is the number of zero rows and columns on each side; 0 means one at the right and at the bottom
    /// only, as in the VAE.
    pub(crate) fn new(channels: usize, padding: usize, vb: VarBuilder) -> Result<Self> {
        let padding = match padding {
            0 => Padding { top: 0, left: 0, bottom: 1, right: 1 },
            around => Padding::same(around),
        };
        let options = Conv2dOptions { stride: 2, padding, upsample: false };
        Ok(Self { conv: Conv2d::new(channels, channels, 3, options, vb.pp("conv"))? })
    }

    /// (batch, height, width, channels) → (batch, about height / 2, about width / 2, channels)
    pub(crate) fn forward(&self, input: &Tensor) -> Result<Tensor> {
        self.conv.forward(input)
    }
}

/// Nearest-neighbour upsampling and a 3 × 3 convolution.
#[derive(Debug, Clone)]
pub(crate) struct Upsample2D {
    conv: Conv2d,
}

impl Upsample2D {
    pub(crate) fn new(channels: usize, vb: VarBuilder) -> Result<Self> {
        let options = Conv2dOptions { upsample: true, ..same_size(3) };
        Ok(Self { conv: Conv2d::new(channels, channels, 3, options, vb.pp("conv"))? })
    }

    /// (batch, height, width, channels) → (batch, 2 height, 2 width, channels)
    pub(crate) fn forward(&self, input: &Tensor) -> Result<Tensor> {
        self.conv.forward(input)
    }

    /// (batch, height, width, channels) → (batch, size.0, size.1, channels), for odd sizes, where halving rounded.
    pub(crate) fn forward_to_size(&self, input: &Tensor, size: (usize, usize)) -> Result<Tensor> {
        let (_, height, width, _) = input.dims4()?;
        if size == (2 * height, 2 * width) {
            return self.forward(input);
        }
        let enlarged = resize_nearest(&resize_nearest(input, 1, size.0)?, 2, size.1)?;
        self.conv.without_upsample().forward(&enlarged)
    }
}

/// Nearest-neighbour interpolation of one dimension to `size`, choosing neighbours as PyTorch does: ⌊i · old / new⌋,
/// with the quotient rounded to f32.
fn resize_nearest(input: &Tensor, dim: usize, size: usize) -> Result<Tensor> {
    let old = input.dim(dim)?;
    let scale = old as f32 / size as f32;
    let neighbours: Vec<u32> =
        (0..size).map(|i| ((i as f32 * scale) as usize).min(old.saturating_sub(1)) as u32).collect();
    input.index_select(&Tensor::new(neighbours, input.device())?, dim)
}
