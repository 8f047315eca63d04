//! Prepares what the images of a run are conditioned on: texts, images, and images to follow.

use candle_core::Tensor;

use crate::control::PreparedControls;
use crate::denoiser::{Denoiser, PreparedDenoiser};
use crate::ip_adapter::ImagePrompt;
use crate::text_states::TextStates;
use crate::unet::{AdditionalResiduals, PreparedUNet};
use crate::{Error, Result};

/// A denoiser with what the images of a batch are conditioned on, for one run. With guidance, the first half of the batch is
/// the unconditioned one, as in diffusers.
pub struct Conditioning<'a> {
    denoiser: Prepared<'a>,
    images: usize,
    guided: bool,
    controls: PreparedControls,
}

/// A denoiser for one run. The UNet of this crate has shortcuts that the others do not have.
enum Prepared<'a> {
    UNet(Box<PreparedUNet<'a>>),
    Other(Box<dyn PreparedDenoiser + 'a>),
}

impl<'a> Conditioning<'a> {
    /// The prompts of `images` images each without guidance, from the states of their texts.
    ///
    /// # Errors
    /// When there are no texts, or `states` are of another width than the denoiser's.
    pub fn unguided(denoiser: &'a dyn Denoiser, states: &TextStates, images: usize) -> Result<Self> {
        Self::new(denoiser, states, images, false, &[])
    }

    /// The prompts of `images` images each with guidance, from the states of twice as many texts: first for each what to
    /// keep away from (the empty text, if nothing), then for each what to show.
    ///
    /// # Errors
    /// When the number of texts is odd or 0, or `states` are of another width than the denoiser's.
    pub fn guided(denoiser: &'a dyn Denoiser, states: &TextStates, images: usize) -> Result<Self> {
        Self::new(denoiser, states, images, true, &[])
    }

    /// The same with images as prompts.
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

    /// The same with images that are followed.
    pub(crate) fn with_controls(self, controls: PreparedControls) -> Self {
        Self { controls, ..self }
    }

    /// Whether there are images to follow.
    pub(crate) fn has_controls(&self) -> bool {
        !self.controls.controls.is_empty()
    }

    /// What the ControlNets add in a step of so many, for latents (images, channels, height, width) as the scheduler
    /// scales them.
    pub(crate) fn residuals(
        &self,
        sample: &Tensor,
        timestep: f64,
        step: (usize, usize),
    ) -> Result<Option<AdditionalResiduals>> {
        self.controls.residuals(sample, timestep, step, self.guided)
    }

    /// What the denoiser predicts, as [`PreparedDenoiser::predict`].
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

    /// The UNet of this crate, if that is what denoises.
    pub(crate) fn unet(&mut self) -> Option<&mut PreparedUNet<'a>> {
        match &mut self.denoiser {
            Prepared::UNet(unet) => Some(unet),
            Prepared::Other(_) => None,
        }
    }

    /// The sample once for each latent that the denoiser gets: twice with guidance.
    pub(crate) fn for_both_halves(&self, sample: Tensor) -> Result<Tensor> {
        if self.guided { Ok(Tensor::cat(&[&sample, &sample], 0)?) } else { Ok(sample) }
    }

    /// How many images it is for.
    pub fn images(&self) -> usize {
        self.images
    }

    /// Whether it has an unconditioned half.
    pub fn is_guided(&self) -> bool {
        self.guided
    }
}
