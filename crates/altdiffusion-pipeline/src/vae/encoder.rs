//! Encodes pixels to the moments of a distribution (diffusers' `Encoder`).

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use fused_ops::{Conv2d, GroupNorm};

use super::config::{AutoencoderKlConfig, EPS};
use super::mid_block::UNetMidBlock2D;
use crate::layers::layout::same_size;
use crate::layers::resnet::ResnetBlock2D;
use crate::layers::sampling::Downsample2D;

/// Level by level down, then the middle block.
#[derive(Debug, Clone)]
pub(super) struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<DownEncoderBlock2D>,
    mid_block: UNetMidBlock2D,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Encoder {
    pub(super) fn new(config: &AutoencoderKlConfig, vb: VarBuilder) -> Result<Self> {
        let channels = &config.block_out_channels;
        let (Some(&first), Some(&last)) = (channels.first(), channels.last()) else {
            candle_core::bail!("an encoder without levels")
        };
        let mut down_blocks = Vec::new();
        let mut in_channels = first;
        for (level, &out_channels) in channels.iter().enumerate() {
            let halves = level + 1 < channels.len();
            let vb = vb.pp("down_blocks").pp(level);
            down_blocks.push(DownEncoderBlock2D::new(config, in_channels, out_channels, halves, vb)?);
            in_channels = out_channels;
        }
        Ok(Self {
            conv_in: Conv2d::new(config.in_channels, first, 3, same_size(3), vb.pp("conv_in"))?,
            down_blocks,
            mid_block: UNetMidBlock2D::new(config, last, vb.pp("mid_block"))?,
            conv_norm_out: GroupNorm::new(config.norm_num_groups, last, EPS, vb.pp("conv_norm_out"))?,
            conv_out: Conv2d::new(last, 2 * config.latent_channels, 3, same_size(3), vb.pp("conv_out"))?,
        })
    }

    /// (batch, height, width, in_channels) → (batch, height / downscale, width / downscale, 2 ×
    /// latent_channels)
    pub(super) fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        let mut hidden = self.conv_in.forward(pixels)?;
        for block in &self.down_blocks {
            hidden = block.forward(hidden)?;
        }
        hidden = self.mid_block.forward(&hidden)?;
        hidden = self.conv_norm_out.forward_silu(&hidden)?;
        self.conv_out.forward(&hidden)
    }
}

/// One level of the encoder.
#[derive(Debug, Clone)]
struct DownEncoderBlock2D {
    resnets: Vec<ResnetBlock2D>,
    downsamplers: Option<Downsample2D>,
}

impl DownEncoderBlock2D {
    fn new(
        config: &AutoencoderKlConfig,
        in_channels: usize,
        out_channels: usize,
        halves: bool,
        vb: VarBuilder,
    ) -> Result<Self> {
        let mut resnets = Vec::new();
        for layer in 0..config.layers_per_block {
            let in_channels = if layer == 0 { in_channels } else { out_channels };
            let resnet = config.resnet(in_channels, out_channels);
            resnets.push(ResnetBlock2D::new(resnet, vb.pp("resnets").pp(layer))?);
        }
        let downsamplers =
            halves.then(|| Downsample2D::new(out_channels, 0, vb.pp("downsamplers.0"))).transpose()?;
        Ok(Self { resnets, downsamplers })
    }

    fn forward(&self, mut hidden: Tensor) -> Result<Tensor> {
        for resnet in &self.resnets {
            hidden = resnet.forward(&hidden, None)?;
        }
        match &self.downsamplers {
            Some(downsampler) => downsampler.forward(&hidden),
            None => Ok(hidden),
        }
    }
}
