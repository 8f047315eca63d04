//! Defines the size of a new UNet.

use altclip_training::Parameters;
use altdiffusion_pipeline::PerBlock;
use altdiffusion_pipeline::unet::UNet2DConditionConfig;
use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

/// The settings of its shape; the rest is as in Stable Diffusion 2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnetShape {
    /// Channels per level.
    pub block_out_channels: Vec<usize>,
    /// Whether each level attends to the prompt.
    pub cross_attention: Vec<bool>,
    /// Residual blocks per level.
    pub layers_per_block: usize,
    /// Heads per attention.
    pub num_attention_heads: usize,
    /// Groups per group normalisation.
    pub norm_num_groups: usize,
    /// The initial factor of each residual branch's last layer.
    pub residual_scale: f64,
}

impl UnetShape {
    /// The configuration for latents (n, channels, height, width) and prompts of this width.
    ///
    /// # Errors
    /// If the latents have another rank.
    pub fn config(&self, latents: &Tensor, cross_attention_dim: usize) -> Result<UNet2DConditionConfig> {
        let (_, channels, height, _) = latents.dims4()?;
        let name = |attends: bool, with: &str, without: &str| if attends { with } else { without }.to_owned();
        let down = self.cross_attention.iter().map(|&a| name(a, "CrossAttnDownBlock2D", "DownBlock2D"));
        let up = self.cross_attention.iter().rev().map(|&a| name(a, "CrossAttnUpBlock2D", "UpBlock2D"));
        Ok(UNet2DConditionConfig {
            sample_size: Some(PerBlock::Same(height)),
            in_channels: channels,
            out_channels: channels,
            down_block_types: down.collect(),
            up_block_types: up.collect(),
            block_out_channels: self.block_out_channels.clone(),
            layers_per_block: PerBlock::Same(self.layers_per_block),
            norm_num_groups: self.norm_num_groups,
            cross_attention_dim: PerBlock::Same(cross_attention_dim),
            attention_head_dim: PerBlock::Same(self.num_attention_heads),
            use_linear_projection: true,
            ..UNet2DConditionConfig::default()
        })
    }

    /// Scales down the residual branches of a new UNet.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn scale_residuals(&self, parameters: &Parameters) -> Result<()> {
        let ends = ["conv2.weight", "proj_out.weight", "conv_out.weight"];
        parameters.scale(self.residual_scale, |name| ends.iter().any(|end| name.ends_with(end)))
    }
}
