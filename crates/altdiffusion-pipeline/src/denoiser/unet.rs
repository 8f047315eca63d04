//! Implements [`Denoiser`] for the UNet.

use candle_core::Tensor;

use super::{Denoiser, DenoiserSpec, PreparedDenoiser};
use crate::Result;
use crate::config::PerBlock;
use crate::text_states::TextStates;
use crate::unet::{
    AdditionalResiduals, ImageContext, PreparedUNet, UNet2DConditionConfig, UNet2DConditionModel,
};

/// The side of the latents below which a configuration is from an early Stable Diffusion, which says 32 and means 64.
const LEAST_SIDE_BEFORE_0_9: usize = 64;

impl Denoiser for UNet2DConditionModel {
    fn spec(&self) -> DenoiserSpec {
        self.config().into()
    }

    fn prepare<'a>(
        &'a self,
        texts: &TextStates,
        images: Vec<ImageContext>,
    ) -> Result<Box<dyn PreparedDenoiser + 'a>> {
        Ok(Box::new(self.prepared(texts, images)?))
    }

    fn as_unet(&self) -> Option<&UNet2DConditionModel> {
        Some(self)
    }
}

impl UNet2DConditionModel {
    /// Prepares the UNet for a run with these texts and images, one row of each per sample.
    ///
    /// # Errors
    /// If the states have another width.
    pub(crate) fn prepared(&self, texts: &TextStates, images: Vec<ImageContext>) -> Result<PreparedUNet<'_>> {
        let context = self.project_context(texts.hidden_states(), texts.key_bias())?;
        Ok(PreparedUNet::new(self, context.with_images(images)))
    }
}

impl PreparedDenoiser for PreparedUNet<'_> {
    fn predict(
        &mut self,
        sample: &Tensor,
        timestep: f64,
        residuals: Option<&AdditionalResiduals>,
    ) -> Result<Tensor> {
        self.forward(sample, timestep, residuals)
    }
}

impl From<&UNet2DConditionConfig> for DenoiserSpec {
    fn from(config: &UNet2DConditionConfig) -> Self {
        let mut spec = Self::new(config.out_channels)
            .in_channels(config.in_channels)
            .controlnet(true)
            .ip_adapter(true)
            .unet(config.clone());
        spec.context_width = match &config.cross_attention_dim {
            PerBlock::Same(width) => Some(*width),
            PerBlock::Each(widths) => widths.first().copied(),
        };
        spec.sample_size = sample_size(config);
        spec
    }
}

/// Height and width of the latents that a UNet was trained on, if its configuration has them.
fn sample_size(config: &UNet2DConditionConfig) -> Option<(usize, usize)> {
    let (height, width) = match config.sample_size.as_ref()? {
        PerBlock::Same(side) => (*side, *side),
        PerBlock::Each(sides) => match sides.as_slice() {
            &[height, width] => (height, width),
            _ => return None,
        },
    };
    let version = config.other.get("_diffusers_version").and_then(|version| version.as_str());
    Some(match version {
        Some(version) if is_before_0_9(version) => {
            (height.max(LEAST_SIDE_BEFORE_0_9), width.max(LEAST_SIDE_BEFORE_0_9))
        }
        _ => (height, width),
    })
}

/// Whether a version of diffusers is before 0.9.
fn is_before_0_9(version: &str) -> bool {
    let mut numbers = version.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < (0, 9),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(is_before_0_9("0.7.0.dev0") && is_before_0_9("0.8.1"));
        assert!(!is_before_0_9("0.9.0") && !is_before_0_9("0.31.0") && !is_before_0_9("unknown"));
    }
}
