//! Computes the middle block of encoder and decoder (diffusers' `UNetMidBlock2D`).

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use fused_ops::GroupNorm;

use super::config::{AutoencoderKlConfig, EPS};
use crate::layers::attention::SelfAttention;
use crate::layers::resnet::ResnetBlock2D;

/// A residual block, self-attention over all positions with one head, and another residual block.
#[derive(Debug, Clone)]
pub(super) struct UNetMidBlock2D {
    resnets: [ResnetBlock2D; 2],
    attentions: Option<AttentionBlock>,
}

impl UNetMidBlock2D {
    pub(super) fn new(config: &AutoencoderKlConfig, channels: usize, vb: VarBuilder) -> Result<Self> {
        let resnet = config.resnet(channels, channels);
        let attentions = config
            .mid_block_add_attention
            .then(|| AttentionBlock::new(channels, config.norm_num_groups, vb.pp("attentions.0")))
            .transpose()?;
        Ok(Self {
            resnets: [
                ResnetBlock2D::new(resnet, vb.pp("resnets.0"))?,
                ResnetBlock2D::new(resnet, vb.pp("resnets.1"))?,
            ],
            attentions,
        })
    }

    /// (batch, height, width, channels) → the same
    pub(super) fn forward(&self, hidden: &Tensor) -> Result<Tensor> {
        let [first, last] = &self.resnets;
        let mut hidden = first.forward(hidden, None)?;
        if let Some(attention) = &self.attentions {
            hidden = attention.forward(&hidden)?;
        }
        last.forward(&hidden, None)
    }
}

/// Self-attention over all positions, after a group norm, with a residual connection.
#[derive(Debug, Clone)]
struct AttentionBlock {
    group_norm: GroupNorm,
    attention: SelfAttention,
}

impl AttentionBlock {
    fn new(channels: usize, groups: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            group_norm: GroupNorm::new(groups, channels, EPS, vb.pp("group_norm"))?,
            attention: SelfAttention::new(channels, 1, true, vb)?,
        })
    }

    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        let (batch, height, width, channels) = input.dims4()?;
        let rows = (batch, height * width, channels);
        let hidden = self.group_norm.forward(input)?.reshape(rows)?;
        self.attention.forward(&hidden, &input.reshape(rows)?)?.reshape((batch, height, width, channels))
    }
}
