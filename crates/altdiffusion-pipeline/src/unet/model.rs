//! Implements the UNet.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use fused_ops::{Conv2d, GroupNorm, Sinusoids, compute_dtype, silu, timestep_embedding};

use super::config::UNet2DConditionConfig;
use super::context::{ContextProjector, CrossAttentionContext};
use super::down_block::DownBlock2D;
use super::embeddings::TimestepEmbedding;
use super::inputs::check_inputs;
use super::mid_block::UNetMidBlock2DCrossAttn;
use super::plan::UNetPlan;
use super::recorder::Recorder;
use super::residuals::AdditionalResiduals;
use super::up_block::UpBlock2D;
use crate::Result;
use crate::layers::layout::{same_size, to_channels_first, to_channels_last};

/// The UNet.
#[derive(Debug, Clone)]
pub struct UNet2DConditionModel {
    conv_in: Conv2d,
    time_proj: Sinusoids,
    time_embedding: TimestepEmbedding,
    down_blocks: Vec<DownBlock2D>,
    mid_block: UNetMidBlock2DCrossAttn,
    up_blocks: Vec<UpBlock2D>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    dtype: DType,
    device: Device,
    recorder: Recorder,
    config: UNet2DConditionConfig,
}

impl UNet2DConditionModel {
    /// Reads the weights from `vb`, which may hold trainable variables.
    ///
    /// # Errors
    /// A configuration that is not supported, or a weight that is missing or has another shape.
    pub fn new(config: &UNet2DConditionConfig, vb: VarBuilder) -> Result<Self> {
        let UNetPlan { blocks, first, last } = config.plan("UNet2DConditionModel")?;
        let time_dim = blocks.time_embedding_dim;

        let mut down_blocks = Vec::new();
        for (i, level) in blocks.levels.iter().enumerate() {
            down_blocks.push(DownBlock2D::new(&blocks, level, vb.pp("down_blocks").pp(i))?);
        }
        let mut up_blocks = Vec::new();
        for (i, level) in blocks.levels.iter().rev().enumerate() {
            up_blocks.push(UpBlock2D::new(&blocks, level, vb.pp("up_blocks").pp(i))?);
        }
        let conv_in = same_size(config.conv_in_kernel);
        let conv_out = same_size(config.conv_out_kernel);
        Ok(Self {
            conv_in: Conv2d::new(
                config.in_channels,
                first.channels,
                config.conv_in_kernel,
                conv_in,
                vb.pp("conv_in"),
            )?,
            time_proj: Sinusoids {
                channels: first.channels,
                flip_sin_to_cos: config.flip_sin_to_cos,
                freq_shift: config.freq_shift,
            },
            time_embedding: TimestepEmbedding::new(first.channels, time_dim, vb.pp("time_embedding"))?,
            down_blocks,
            mid_block: UNetMidBlock2DCrossAttn::new(&blocks, &last, vb.pp("mid_block"))?,
            up_blocks,
            conv_norm_out: GroupNorm::new(blocks.groups, first.channels, blocks.eps, vb.pp("conv_norm_out"))?,
            conv_out: Conv2d::new(
                first.channels,
                config.out_channels,
                config.conv_out_kernel,
                conv_out,
                vb.pp("conv_out"),
            )?,
            dtype: compute_dtype(vb.dtype(), vb.device()),
            device: vb.device().clone(),
            recorder: Recorder::default(),
            config: config.clone(),
        })
    }

    /// What the model was built from.
    pub fn config(&self) -> &UNet2DConditionConfig {
        &self.config
    }

    /// The dtype it computes in.
    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    /// The device it computes on.
    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    /// The recorder of its forward pass.
    pub(super) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Projects a prompt's hidden states, (batch, tokens, width), to the keys and values of every cross-attention. Do
    /// this once per prompt, since they do not depend on the step.
    ///
    /// `key_bias`, (batch, tokens), is added to each token's scores: −∞ masks it, and ln m makes it stand for m equal
    /// tokens, so that a prompt's padding needs only one row.
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
        for block in &self.up_blocks {
            block.project_context(&mut projector)?;
        }
        Ok(projector.finish())
    }

    /// Predicts noise or velocity, as trained, (batch, out_channels, height, width), for noisy latents (batch,
    /// in_channels, height, width) at `timesteps` (batch), which may be fractional. Computes in [`compute_dtype`] and
    /// returns the latents' dtype.
    ///
    /// # Errors
    /// If the tensors do not fit each other or the model.
    pub fn forward(
        &self,
        sample: &Tensor,
        timesteps: &Tensor,
        context: &CrossAttentionContext,
    ) -> Result<Tensor> {
        self.forward_with_residuals(sample, timesteps, context, None)
    }

    /// Like [`forward`](Self::forward), with residuals of another model for the skips and the middle.
    ///
    /// # Errors
    /// Also if that model has other levels or layers.
    pub fn forward_with_residuals(
        &self,
        sample: &Tensor,
        timesteps: &Tensor,
        context: &CrossAttentionContext,
        residuals: Option<&AdditionalResiduals>,
    ) -> Result<Tensor> {
        self.check_inputs(sample, timesteps, context)?;
        let prediction = self.predict(&self.to_input(sample)?, timesteps, context, residuals)?;
        self.to_prediction(&prediction, sample.dtype())
    }

    pub(super) fn check_inputs(
        &self,
        sample: &Tensor,
        timesteps: &Tensor,
        context: &CrossAttentionContext,
    ) -> Result<()> {
        check_inputs(self.config.in_channels, sample, timesteps, context)
    }

    /// Converts a sample to the input of [`predict`](Self::predict).
    pub(crate) fn to_input(&self, sample: &Tensor) -> Result<Tensor> {
        Ok(to_channels_last(&sample.to_dtype(self.dtype)?)?)
    }

    /// Converts the output of [`predict`](Self::predict) back.
    pub(super) fn to_prediction(&self, prediction: &Tensor, dtype: DType) -> Result<Tensor> {
        Ok(to_channels_first(prediction)?.to_dtype(dtype)?)
    }

    /// The forward pass in the UNet's layout and dtype: (batch, height, width, in_channels) → (batch, height, width,
    /// out_channels).
    pub(super) fn predict(
        &self,
        input: &Tensor,
        timesteps: &Tensor,
        context: &CrossAttentionContext,
        residuals: Option<&AdditionalResiduals>,
    ) -> Result<Tensor> {
        let time = self.embed_time(timesteps)?;
        let context = &mut context.cursor();

        let mut hidden = match self.config.center_input_sample {
            true => self.conv_in.forward(&((input * 2.0)? - 1.0)?)?,
            false => self.conv_in.forward(input)?,
        };
        let mut skips = vec![hidden.clone()];
        for block in &self.down_blocks {
            hidden = block.forward(hidden, &time, context, &mut skips)?;
        }
        hidden = self.mid_block.forward(&hidden, &time, context)?;
        if let Some(residuals) = residuals {
            residuals.add_to(&mut skips, &mut hidden)?;
        }
        for block in &self.up_blocks {
            hidden = block.forward(hidden, &time, context, &mut skips)?;
        }
        hidden = self.conv_norm_out.forward_silu(&hidden)?;
        Ok(self.conv_out.forward(&hidden)?)
    }

    /// Like [`forward`](Self::forward), for hidden states (batch, tokens, width) that are used only once, as in
    /// training, where gradients flow back into them.
    ///
    /// # Errors
    /// If the tensors do not fit each other or the model.
    pub fn forward_with_hidden_states(
        &self,
        sample: &Tensor,
        timesteps: &Tensor,
        hidden_states: &Tensor,
    ) -> Result<Tensor> {
        self.forward(sample, timesteps, &self.project_context(hidden_states, None)?)
    }

    /// Embeds timesteps, including the SiLU at the start of every residual block: (batch) → (batch,
    /// time_embedding_dim).
    fn embed_time(&self, timesteps: &Tensor) -> Result<Tensor> {
        let sinusoids = timestep_embedding(timesteps, self.time_proj, self.dtype)?;
        Ok(silu(&self.time_embedding.forward(&sinusoids)?)?)
    }
}
