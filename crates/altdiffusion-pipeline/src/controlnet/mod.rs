//! Computes what an image adds to the UNet: ControlNet (Zhang et al., 2023, arXiv:2302.05543), as in diffusers'
//! `ControlNetModel`.

mod condition;
mod config;
mod difference;
mod inferred;
mod load;
mod naming;
mod single_file;
#[cfg(test)]
mod tests;

use candle_core::{DType, Tensor};
use candle_nn::VarBuilder;
use fused_ops::{Conv2d, Sinusoids, compute_dtype, silu, timestep_embedding};

use crate::layers::layout::{same_size, to_channels_last};
use crate::unet::{
    AdditionalResiduals, ContextProjector, CrossAttentionContext, DownBlock2D, TimestepEmbedding,
    UNet2DConditionConfig, UNetMidBlock2DCrossAttn, UNetPlan, check_inputs,
};
use crate::{Error, Result};
pub use condition::Condition;
use condition::ControlNetConditioningEmbedding;
pub use config::{ChannelOrder, ControlNetConfig};

/// A copy of the UNet's downsampling path that follows an image, and whose outputs are added to the UNet's skips.
#[derive(Debug, Clone)]
pub struct ControlNetModel {
    conv_in: Conv2d,
    time_proj: Sinusoids,
    time_embedding: TimestepEmbedding,
    controlnet_cond_embedding: ControlNetConditioningEmbedding,
    down_blocks: Vec<DownBlock2D>,
    /// One per skip.
    controlnet_down_blocks: Vec<Conv2d>,
    mid_block: UNetMidBlock2DCrossAttn,
    controlnet_mid_block: Conv2d,
    dtype: DType,
    config: ControlNetConfig,
}

impl ControlNetModel {
    /// Reads the weights from `vb`, which may hold trainable variables.
    ///
    /// # Errors
    /// A configuration that is not supported, or a weight that is missing or has another shape.
    pub fn new(config: &ControlNetConfig, vb: VarBuilder) -> Result<Self> {
        let UNetPlan { blocks, first, last } = config.plan()?;

        let mut down_blocks = Vec::new();
        let mut skips = vec![first.channels];
        for (i, level) in blocks.levels.iter().enumerate() {
            down_blocks.push(DownBlock2D::new(&blocks, level, vb.pp("down_blocks").pp(i))?);
            let halvings = usize::from(!level.is_lowest);
            skips.extend(vec![level.channels; level.layers + halvings]);
        }
        let pointwise = |channels, vb| Conv2d::new(channels, channels, 1, same_size(1), vb);
        let mut controlnet_down_blocks = Vec::new();
        for (i, channels) in skips.into_iter().enumerate() {
            controlnet_down_blocks.push(pointwise(channels, vb.pp("controlnet_down_blocks").pp(i))?);
        }
        let (width, time_dim) = (first.channels, blocks.time_embedding_dim);
        Ok(Self {
            conv_in: Conv2d::new(config.in_channels, width, 3, same_size(3), vb.pp("conv_in"))?,
            time_proj: Sinusoids {
                channels: width,
                flip_sin_to_cos: config.flip_sin_to_cos,
                freq_shift: config.freq_shift,
            },
            time_embedding: TimestepEmbedding::new(width, time_dim, vb.pp("time_embedding"))?,
            controlnet_cond_embedding: ControlNetConditioningEmbedding::new(
                config,
                width,
                vb.pp("controlnet_cond_embedding"),
            )?,
            down_blocks,
            controlnet_down_blocks,
            mid_block: UNetMidBlock2DCrossAttn::new(&blocks, &last, vb.pp("mid_block"))?,
            controlnet_mid_block: pointwise(last.channels, vb.pp("controlnet_mid_block"))?,
            dtype: compute_dtype(vb.dtype(), vb.device()),
            config: config.clone(),
        })
    }

    /// What the model was built from.
    pub fn config(&self) -> &ControlNetConfig {
        &self.config
    }

    /// Checks that the model fits a UNet: the same levels, and prompts of the same width.
    ///
    /// # Errors
    /// Names the field of the configuration that differs.
    pub fn check_fits(&self, unet: &UNet2DConditionConfig) -> Result<()> {
        self.config.check_fits(unet)
    }

    /// Embeds the image to follow, pixels (images, 3, height, width) from 0 to 1. A single image serves all latents
    /// of a batch.
    ///
    /// # Errors
    /// If the shape is another.
    pub fn embed_image(&self, pixels: &Tensor) -> Result<Condition> {
        let &[_, channels, _, _] = pixels.dims() else { return Err(self.unfit("pixels", pixels)) };
        if channels != self.config.conditioning_channels {
            return Err(self.unfit("pixels", pixels));
        }
        let pixels = match self.config.controlnet_conditioning_channel_order {
            ChannelOrder::Rgb => pixels.clone(),
            ChannelOrder::Bgr => pixels.flip(&[1])?,
        };
        let pixels = to_channels_last(&pixels.to_dtype(self.dtype)?)?;
        Ok(Condition { embedding: self.controlnet_cond_embedding.forward(&pixels)? })
    }

    /// Projects a prompt's hidden states to the keys and values of every cross-attention, like
    /// [`UNet2DConditionModel::project_context`](crate::unet::UNet2DConditionModel::project_context).
    ///
    /// # Errors
    /// If the hidden states or the bias have another rank, width or batch size.
    pub fn project_context(
        &self,
        hidden_states: &Tensor,
        key_bias: Option<&Tensor>,
    ) -> Result<CrossAttentionContext> {
        let mut projector = ContextProjector::new(hidden_states, key_bias, self.dtype)?;
        for block in &self.down_blocks {
            block.project_context(&mut projector)?;
        }
        self.mid_block.project_context(&mut projector)?;
        Ok(projector.finish())
    }

    /// Computes the residuals for the UNet's skips and middle, for noisy latents (batch, in_channels, height, width)
    /// at `timesteps` (batch). `condition` is of one image or of a batch.
    ///
    /// # Errors
    /// If the tensors do not fit each other or the model.
    pub fn forward(
        &self,
        sample: &Tensor,
        timesteps: &Tensor,
        context: &CrossAttentionContext,
        condition: &Condition,
    ) -> Result<AdditionalResiduals> {
        check_inputs(self.config.in_channels, sample, timesteps, context)?;
        let sinusoids = timestep_embedding(timesteps, self.time_proj, self.dtype)?;
        let time = silu(&self.time_embedding.forward(&sinusoids)?)?;
        let context = &mut context.cursor();

        let hidden = self.conv_in.forward(&to_channels_last(&sample.to_dtype(self.dtype)?)?)?;
        let mut hidden = self.conditioned(&hidden, condition)?;
        let mut skips = vec![hidden.clone()];
        for block in &self.down_blocks {
            hidden = block.forward(hidden, &time, context, &mut skips)?;
        }
        hidden = self.mid_block.forward(&hidden, &time, context)?;

        let mut down = Vec::with_capacity(skips.len());
        for (skip, layer) in skips.iter().zip(&self.controlnet_down_blocks) {
            down.push(self.pooled(layer.forward(skip)?)?);
        }
        let mid = self.pooled(self.controlnet_mid_block.forward(&hidden)?)?;
        Ok(AdditionalResiduals::new(down, mid))
    }

    /// Adds the embedded image to the embedded latents.
    fn conditioned(&self, hidden: &Tensor, condition: &Condition) -> Result<Tensor> {
        let (batch, height, width, _) = hidden.dims4()?;
        let (images, h, w, _) = condition.embedding.dims4()?;
        if (h, w) != (height, width) || ![1, batch].contains(&images) {
            return Err(Error::Shape {
                tensor: "condition",
                expected: format!("1 or {batch} images, {height} × {width} latents high and wide"),
                found: format!("{images} of {h} × {w}"),
            });
        }
        Ok(hidden.broadcast_add(&condition.embedding)?)
    }

    /// (batch, height, width, channels) → the same, or (batch, 1, 1, channels) if residuals are averaged.
    fn pooled(&self, residual: Tensor) -> Result<Tensor> {
        if self.config.global_pool_conditions { Ok(residual.mean_keepdim((1, 2))?) } else { Ok(residual) }
    }

    fn unfit(&self, tensor: &'static str, found: &Tensor) -> Error {
        Error::Shape {
            tensor,
            expected: format!("(images, {}, height, width)", self.config.conditioning_channels),
            found: format!("{:?}", found.dims()),
        }
    }
}
