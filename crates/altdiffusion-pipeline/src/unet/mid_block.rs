//! Computes the middle block (diffusers' `UNetMidBlock2DCrossAttn`).

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::context::{ContextCursor, ContextProjector};
use super::plan::{BlockSettings, Level};
use super::transformer::Transformer2DModel;
use crate::layers::resnet::{ResnetBlock2D, ResnetConfig};

/// A residual block, a transformer and another residual block.
#[derive(Debug, Clone)]
pub(crate) struct UNetMidBlock2DCrossAttn {
    resnets: [ResnetBlock2D; 2],
    attentions: Transformer2DModel,
}

impl UNetMidBlock2DCrossAttn {
    pub(crate) fn new(settings: &BlockSettings, lowest: &Level, vb: VarBuilder) -> Result<Self> {
        let resnet = ResnetConfig {
            output_scale_factor: settings.mid_block_scale_factor,
            ..settings.resnet(lowest.channels, lowest.channels)
        };
        Ok(Self {
            resnets: [
                ResnetBlock2D::new(resnet, vb.pp("resnets.0"))?,
                ResnetBlock2D::new(resnet, vb.pp("resnets.1"))?,
            ],
            attentions: Transformer2DModel::new(settings.transformer(lowest), vb.pp("attentions.0"))?,
        })
    }

    /// Projects the prompt for each cross-attention.
    pub(crate) fn project_context(&self, projector: &mut ContextProjector) -> Result<()> {
        self.attentions.project_context(projector)
    }

    /// (batch, height, width, channels) → the same
    pub(crate) fn forward(
        &self,
        hidden: &Tensor,
        time: &Tensor,
        context: &mut ContextCursor,
    ) -> Result<Tensor> {
        let [first, last] = &self.resnets;
        let mut hidden = first.forward(hidden, Some(time))?;
        hidden = self.attentions.forward(&hidden, context)?;
        last.forward(&hidden, Some(time))
    }
}
