//! Computes one level of the downsampling path (diffusers' `DownBlock2D` and `CrossAttnDownBlock2D`).

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::context::{ContextCursor, ContextProjector};
use super::plan::{BlockSettings, Level};
use super::transformer::Transformer2DModel;
use crate::layers::resnet::ResnetBlock2D;
use crate::layers::sampling::Downsample2D;

/// Residual blocks, each followed by a transformer if the level attends to the prompt, then a downsampler on all
/// levels but the lowest.
#[derive(Debug, Clone)]
pub(crate) struct DownBlock2D {
    resnets: Vec<ResnetBlock2D>,
    /// One per residual block, or none.
    attentions: Vec<Transformer2DModel>,
    downsamplers: Option<Downsample2D>,
}

impl DownBlock2D {
    pub(crate) fn new(settings: &BlockSettings, level: &Level, vb: VarBuilder) -> Result<Self> {
        let mut resnets = Vec::new();
        let mut attentions = Vec::new();
        for layer in 0..level.layers {
            let in_channels = if layer == 0 { level.higher_channels } else { level.channels };
            let resnet = settings.resnet(in_channels, level.channels);
            resnets.push(ResnetBlock2D::new(resnet, vb.pp("resnets").pp(layer))?);
            if level.down_attends {
                let transformer = settings.transformer(level);
                attentions.push(Transformer2DModel::new(transformer, vb.pp("attentions").pp(layer))?);
            }
        }
        let downsamplers = (!level.is_lowest)
            .then(|| Downsample2D::new(level.channels, settings.downsample_padding, vb.pp("downsamplers.0")))
            .transpose()?;
        Ok(Self { resnets, attentions, downsamplers })
    }

    /// Projects the prompt for each cross-attention.
    pub(crate) fn project_context(&self, projector: &mut ContextProjector) -> Result<()> {
        self.attentions.iter().try_for_each(|attention| attention.project_context(projector))
    }

    /// (batch, height, width, channels of the level above) → (batch, about height / 2, about width / 2, channels).
    /// Pushes the upsampling path's inputs on `skips`.
    pub(crate) fn forward(
        &self,
        mut hidden: Tensor,
        time: &Tensor,
        context: &mut ContextCursor,
        skips: &mut Vec<Tensor>,
    ) -> Result<Tensor> {
        for (layer, resnet) in self.resnets.iter().enumerate() {
            hidden = resnet.forward(&hidden, Some(time))?;
            if let Some(attention) = self.attentions.get(layer) {
                hidden = attention.forward(&hidden, context)?;
            }
            skips.push(hidden.clone());
        }
        if let Some(downsampler) = &self.downsamplers {
            hidden = downsampler.forward(&hidden)?;
            skips.push(hidden.clone());
        }
        Ok(hidden)
    }
}
