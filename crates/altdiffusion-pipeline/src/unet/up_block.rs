//! Computes one level of the upsampling path (diffusers' `UpBlock2D` and `CrossAttnUpBlock2D`).

use candle_core::{D, Result, Tensor};
use candle_nn::VarBuilder;

use super::context::{ContextCursor, ContextProjector};
use super::plan::{BlockSettings, Level};
use super::transformer::Transformer2DModel;
use crate::layers::resnet::ResnetBlock2D;
use crate::layers::sampling::Upsample2D;

/// Residual blocks, each of which concatenates a skip and is followed by a transformer if the level attends to the
/// prompt, then an upsampler on all levels but the highest.
#[derive(Debug, Clone)]
pub(super) struct UpBlock2D {
    resnets: Vec<ResnetBlock2D>,
    /// One per residual block, or none.
    attentions: Vec<Transformer2DModel>,
    upsamplers: Option<Upsample2D>,
}

impl UpBlock2D {
    pub(super) fn new(settings: &BlockSettings, level: &Level, vb: VarBuilder) -> Result<Self> {
        let mut resnets = Vec::new();
        let mut attentions = Vec::new();
        for layer in 0..=level.layers {
            let in_channels = if layer == 0 { level.lower_channels } else { level.channels };
            let skip_channels = if layer == level.layers { level.higher_channels } else { level.channels };
            let resnet = settings.resnet(in_channels + skip_channels, level.channels);
            resnets.push(ResnetBlock2D::new(resnet, vb.pp("resnets").pp(layer))?);
            if level.up_attends {
                let transformer = settings.transformer(level);
                attentions.push(Transformer2DModel::new(transformer, vb.pp("attentions").pp(layer))?);
            }
        }
        let upsamplers = (!level.is_highest)
            .then(|| Upsample2D::new(level.channels, vb.pp("upsamplers.0")))
            .transpose()?;
        Ok(Self { resnets, attentions, upsamplers })
    }

    /// Projects the prompt for each cross-attention.
    pub(super) fn project_context(&self, projector: &mut ContextProjector) -> Result<()> {
        self.attentions.iter().try_for_each(|attention| attention.project_context(projector))
    }

    /// (batch, height, width, channels of the level below) → (batch, height', width', channels), where height' and
    /// width' are those of the skip for the level above. Pops this level's skips off `skips`.
    pub(super) fn forward(
        &self,
        mut hidden: Tensor,
        time: &Tensor,
        context: &mut ContextCursor,
        skips: &mut Vec<Tensor>,
    ) -> Result<Tensor> {
        for (layer, resnet) in self.resnets.iter().enumerate() {
            let Some(skip) = skips.pop() else {
                candle_core::bail!("the upsampling path has more residual blocks than there are skips")
            };
            hidden = Tensor::cat(&[hidden, skip], D::Minus1)?;
            hidden = resnet.forward(&hidden, Some(time))?;
            if let Some(attention) = self.attentions.get(layer) {
                hidden = attention.forward(&hidden, context)?;
            }
        }
        match (&self.upsamplers, skips.last()) {
            (Some(upsampler), Some(skip)) => {
                let (_, height, width, _) = skip.dims4()?;
                upsampler.forward_to_size(&hidden, (height, width))
            }
            _ => Ok(hidden),
        }
    }
}
