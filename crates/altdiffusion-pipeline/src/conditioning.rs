//! Prepares the conditioning of a run: texts, image prompts and ControlNets.

use candle_core::Tensor;

use crate::control::PreparedControls;
use crate::denoiser::{Denoiser, PreparedDenoiser};
use crate::ip_adapter::ImagePrompt;
use crate::text_states::TextStates;
use crate::unet::{AdditionalResiduals, PreparedUNet};
use crate::{Error, Result};

/// A denoiser prepared with the conditioning of a batch, for one run. With guidance, the first half of the batch is
/// unconditional, as in diffusers.
pub struct Conditioning<'a> {
    denoiser: Prepared<'a>,
    images: usize,
    guided: bool,
    controls: PreparedControls,
}

/// A denoiser for one run. This crate's UNet has shortcuts that others do not.
enum Prepared<'a> {
    UNet(Box<PreparedUNet<'a>>),
    Other(Box<dyn PreparedDenoiser + 'a>),
}

impl<'a> Conditioning<'a> {
    /// Conditions `images` images per prompt on the hidden states of their texts, without guidance.
    ///
    /// # Errors
    /// If there are no texts, or `states` do not have the denoiser's width.
    pub fn unguided(denoiser: &'a dyn Denoiser, states: &TextStates, images: usize) -> Result<Self> {
        Self::new(denoiser, states, images, false, &[])
    }

    /// Conditions `images` images per prompt, with guidance. `states` has twice as many texts: first every negative
    /// prompt (the empty text if there is none), then every prompt.
    ///
    /// # Errors
    /// If the number of texts is odd or 0, or `states` do not have the denoiser's width.
    pub fn guided(denoiser: &'a dyn Denoiser, states: &TextStates, images: usize) -> Result<Self> {
        Self::new(denoiser, states, images, true, &[])
    }

    /// Adds image prompts to either.
    pub(crate) fn new(
        denoiser: &'a dyn Denoiser,
        states: &TextStates,
        images: usize,
        guided: bool,
        image_prompts: &[ImagePrompt],
    ) -> Result<Self> {
        let halves = if guided { 2 } else { 1 };
        if states.texts() == 0 || !states.texts().is_multiple_of(halves) {
            return Err(Error::Shape {
                tensor: "hidden_states",
                expected: format!("({}, tokens, width)", if guided { "2 × prompts" } else { "prompts" }),
                found: format!("{:?}", states.hidden_states().dims()),
            });
        }
        let states = states.repeat_each(images)?;
        let images = states.texts() / halves;
        let contexts = image_prompts.iter().map(|prompt| prompt.project(images, guided));
        let contexts = contexts.collect::<Result<_>>()?;
        let denoiser = match denoiser.as_unet() {
            Some(unet) => Prepared::UNet(Box::new(unet.prepared(&states, contexts)?)),
            None => Prepared::Other(denoiser.prepare(&states, contexts)?),
        };
        Ok(Self { denoiser, images, guided, controls: PreparedControls::default() })
    }

    /// Adds ControlNets.
    pub(crate) fn with_controls(self, controls: PreparedControls) -> Self {
        Self { controls, ..self }
    }

    /// Whether there are ControlNets.
    pub(crate) fn has_controls(&self) -> bool {
        !self.controls.controls.is_empty()
    }

    /// The ControlNets' residuals in step `step.0` of `step.1`, for latents (images, channels, height, width) as the
    /// scheduler scales them.
    pub(crate) fn residuals(
        &self,
        sample: &Tensor,
        timestep: f64,
        step: (usize, usize),
    ) -> Result<Option<AdditionalResiduals>> {
        self.controls.residuals(sample, timestep, step, self.guided)
    }

    /// The denoiser's prediction, see [`PreparedDenoiser::predict`].
    pub(crate) fn predict(
        &mut self,
        sample: &Tensor,
        timestep: f64,
        residuals: Option<&AdditionalResiduals>,
    ) -> Result<Tensor> {
        match &mut self.denoiser {
            Prepared::UNet(unet) => unet.forward(sample, timestep, residuals),
            Prepared::Other(denoiser) => {
                let prediction = denoiser.predict(sample, timestep, residuals)?;
                match (sample.dims(), prediction.dims()) {
                    (&[batch, _, height, width], &[b, _, h, w]) if (b, h, w) == (batch, height, width) => {
                        Ok(prediction)
                    }
                    (sample, found) => Err(Error::Shape {
                        tensor: "prediction",
                        expected: format!("that of the sample {sample:?}, but for its channels"),
                        found: format!("{found:?}"),
                    }),
                }
            }
        }
    }

    /// This crate's UNet, if that is the denoiser.
    pub(crate) fn unet(&mut self) -> Option<&mut PreparedUNet<'a>> {
        match &mut self.denoiser {
            Prepared::UNet(unet) => Some(unet),
            Prepared::Other(_) => None,
        }
    }

    /// Repeats the sample for both halves if there is guidance.
    pub(crate) fn for_both_halves(&self, sample: Tensor) -> Result<Tensor> {
        if self.guided { Ok(Tensor::cat(&[&sample, &sample], 0)?) } else { Ok(sample) }
    }

    /// The number of images.
    pub fn images(&self) -> usize {
        self.images
    }

    /// Whether it has an unconditional half.
    pub fn is_guided(&self) -> bool {
        self.guided
    }
}
