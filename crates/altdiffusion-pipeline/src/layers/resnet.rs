//! Computes the residual block of the UNet and the VAE (diffusers' `ResnetBlock2D`).

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use fused_ops::{Conv2d, Epilogue, GroupNorm, Linear};

use super::layout::same_size;

/// The sizes of a [`ResnetBlock2D`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct ResnetConfig {
    pub in_channels: usize,
    pub out_channels: usize,
    /// Width of the time embedding; `None` in the VAE, which has none.
    pub time_embedding_dim: Option<usize>,
    pub groups: usize,
    pub eps: f64,
    /// The divisor of the sum of input and residual.
    pub output_scale_factor: f64,
}

/// Two 3 × 3 convolutions, each after a group norm and SiLU, with a residual connection.
#[derive(Debug, Clone)]
pub(crate) struct ResnetBlock2D {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
    output_scale_factor: f64,
}

impl ResnetBlock2D {
    pub(crate) fn new(config: ResnetConfig, vb: VarBuilder) -> Result<Self> {
        let ResnetConfig { in_channels, out_channels, time_embedding_dim, groups, eps, output_scale_factor } =
            config;
        let time_emb_proj = time_embedding_dim
            .map(|width| Linear::new(width, out_channels, true, vb.pp("time_emb_proj")))
            .transpose()?;
        let conv_shortcut = (in_channels != out_channels)
            .then(|| Conv2d::new(in_channels, out_channels, 1, same_size(1), vb.pp("conv_shortcut")))
            .transpose()?;
        Ok(Self {
            norm1: GroupNorm::new(groups, in_channels, eps, vb.pp("norm1"))?,
            conv1: Conv2d::new(in_channels, out_channels, 3, same_size(3), vb.pp("conv1"))?,
            time_emb_proj,
            norm2: GroupNorm::new(groups, out_channels, eps, vb.pp("norm2"))?,
            conv2: Conv2d::new(out_channels, out_channels, 3, same_size(3), vb.pp("conv2"))?,
            conv_shortcut,
            output_scale_factor,
        })
    }

    /// (batch, height, width, in_channels) → (batch, height, width, out_channels). `time` is the time embedding after
    /// its SiLU, (batch, time_embedding_dim), computed once for all blocks.
    pub(crate) fn forward(&self, input: &Tensor, time: Option<&Tensor>) -> Result<Tensor> {
        let shift = match (&self.time_emb_proj, time) {
            (Some(projection), Some(time)) => Some(projection.forward(time)?), // (batch, out_channels)
            _ => None,
        };
        let hidden = self.norm1.forward_silu(input)?;
        let hidden = match &shift {
            // On a GPU the norm adds it while reading: not every convolution there can add it while writing.
            Some(shift) if input.device().is_cuda() => {
                self.norm2.forward_shifted_silu(&self.conv1.forward(&hidden)?, shift)?
            }
            shift => {
                let shift = Epilogue { shift: shift.as_ref(), ..Epilogue::default() };
                self.norm2.forward_silu(&self.conv1.forward_with(&hidden, &shift)?)?
            }
        };
        let shortcut = self.conv_shortcut.as_ref().map(|shortcut| shortcut.forward(input)).transpose()?;
        let around = shortcut.as_ref().unwrap_or(input);
        let sum = self.conv2.forward_with(&hidden, &Epilogue::residual(around))?;
        if self.output_scale_factor == 1.0 { Ok(sum) } else { sum / self.output_scale_factor }
    }
}
