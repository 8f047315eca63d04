//! Embeds the image that a ControlNet follows, at the latents' size (diffusers' `ControlNetConditioningEmbedding`).

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use fused_ops::{Activation, Conv2d, Conv2dOptions, Epilogue, Padding};

use super::config::ControlNetConfig;
use crate::layers::layout::same_size;

/// A ControlNet's embedding of an image. It does not depend on the step, so it is computed once.
#[derive(Debug, Clone)]
pub struct Condition {
    /// (images, height, width, channels of the highest level), in the latents' size
    pub(super) embedding: Tensor,
}

/// Convolutions; every second one in `blocks` halves the resolution.
#[derive(Debug, Clone)]
pub(super) struct ControlNetConditioningEmbedding {
    conv_in: Conv2d,
    blocks: Vec<Conv2d>,
    conv_out: Conv2d,
}

impl ControlNetConditioningEmbedding {
    /// `out_channels` is that of the ControlNet's highest level.
    pub(super) fn new(config: &ControlNetConfig, out_channels: usize, vb: VarBuilder) -> Result<Self> {
        let halving = Conv2dOptions { stride: 2, padding: Padding::same(1), upsample: false };
        let channels = &config.conditioning_embedding_out_channels;
        let (first, last) = (channels.first().copied(), channels.last().copied());
        let mut blocks = Vec::new();
        for (&here, &next) in channels.iter().zip(channels.iter().skip(1)) {
            for (out, options) in [(here, same_size(3)), (next, halving)] {
                blocks.push(Conv2d::new(here, out, 3, options, vb.pp("blocks").pp(blocks.len()))?);
            }
        }
        let conv = |input, output, name| Conv2d::new(input, output, 3, same_size(3), vb.pp(name));
        Ok(Self {
            conv_in: conv(config.conditioning_channels, first.unwrap_or(0), "conv_in")?,
            blocks,
            conv_out: conv(last.unwrap_or(0), out_channels, "conv_out")?,
        })
    }

    /// (images, pixels high, pixels wide, 3) → (images, height, width, out_channels)
    pub(super) fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        let silu = Epilogue::activation(Activation::Silu);
        let mut hidden = self.conv_in.forward_with(pixels, &silu)?;
        for block in &self.blocks {
            hidden = block.forward_with(&hidden, &silu)?;
        }
        self.conv_out.forward(&hidden)
    }
}
