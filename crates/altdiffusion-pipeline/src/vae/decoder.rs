//! Decodes latents to pixels (diffusers' `Decoder`).

use candle_core::Tensor;
use candle_nn::VarBuilder;
use fused_ops::{Conv2d, GroupNorm};

use super::config::{AutoencoderKlConfig, EPS};
use super::mid_block::UNetMidBlock2D;
use crate::cancellation::Cancellation;
use crate::layers::layout::same_size;
use crate::layers::resnet::ResnetBlock2D;
use crate::layers::sampling::Upsample2D;
use crate::{Error, Result};

/// The middle block, then level by level up.
#[derive(Debug, Clone)]
pub(super) struct Decoder {
    conv_in: Conv2d,
    mid_block: UNetMidBlock2D,
    up_blocks: Vec<UpDecoderBlock2D>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    pub(super) fn new(config: &AutoencoderKlConfig, vb: VarBuilder) -> Result<Self> {
        let channels = config.decoder_channels();
        let (Some(&first), Some(&last)) = (channels.first(), channels.last()) else {
            return Err(Error::Config {
                model: "AutoencoderKL",
                field: "block_out_channels",
                expected: "at least one level".to_owned(),
                found: "[]".to_owned(),
            });
        };
        let mut up_blocks = Vec::new();
        let mut in_channels = last;
        for (block, &out_channels) in channels.iter().rev().enumerate() {
            let doubles = block + 1 < channels.len();
            let vb = vb.pp("up_blocks").pp(block);
            up_blocks.push(UpDecoderBlock2D::new(config, in_channels, out_channels, doubles, vb)?);
            in_channels = out_channels;
        }
        Ok(Self {
            conv_in: Conv2d::new(config.latent_channels, last, 3, same_size(3), vb.pp("conv_in"))?,
            mid_block: UNetMidBlock2D::new(config, last, vb.pp("mid_block"))?,
            up_blocks,
            conv_norm_out: GroupNorm::new(config.norm_num_groups, first, EPS, vb.pp("conv_norm_out"))?,
            conv_out: Conv2d::new(first, config.out_channels, 3, same_size(3), vb.pp("conv_out"))?,
        })
    }

    /// (batch, height, width, latent_channels) → (batch, height × downscale, width × downscale, out_channels)
    ///
    /// # Errors
    /// Also [`Error::Cancelled`](crate::Error::Cancelled), between levels.
    pub(super) fn forward(&self, latents: &Tensor, cancellation: &Cancellation) -> Result<Tensor> {
        let mut hidden = self.conv_in.forward(latents)?;
        hidden = self.mid_block.forward(&hidden)?;
        for block in &self.up_blocks {
            cancellation.check()?;
            hidden = block.forward(hidden)?;
        }
        cancellation.check()?;
        hidden = self.conv_norm_out.forward_silu(&hidden)?;
        Ok(self.conv_out.forward(&hidden)?)
    }
}

/// One level of the decoder.
#[derive(Debug, Clone)]
struct UpDecoderBlock2D {
    resnets: Vec<ResnetBlock2D>,
    upsamplers: Option<Upsample2D>,
}

impl UpDecoderBlock2D {
    fn new(
        config: &AutoencoderKlConfig,
        in_channels: usize,
        out_channels: usize,
        doubles: bool,
        vb: VarBuilder,
    ) -> Result<Self> {
        let mut resnets = Vec::new();
        for layer in 0..=config.layers_per_block {
            let in_channels = if layer == 0 { in_channels } else { out_channels };
            let resnet = config.resnet(in_channels, out_channels);
            resnets.push(ResnetBlock2D::new(resnet, vb.pp("resnets").pp(layer))?);
        }
        let upsamplers = doubles.then(|| Upsample2D::new(out_channels, vb.pp("upsamplers.0"))).transpose()?;
        Ok(Self { resnets, upsamplers })
    }

    fn forward(&self, mut hidden: Tensor) -> Result<Tensor> {
        for resnet in &self.resnets {
            hidden = resnet.forward(&hidden, None)?;
        }
        match &self.upsamplers {
            Some(upsampler) => Ok(upsampler.forward(&hidden)?),
            None => Ok(hidden),
        }
    }
}
