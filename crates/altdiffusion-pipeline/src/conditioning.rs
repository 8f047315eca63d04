//! Prepares what the images of a run are conditioned on: texts, images, and images to follow.

use candle_core::Tensor;

use crate::control::PreparedControls;
use crate::ip_adapter::ImagePrompt;
use crate::text_states::TextStates;
use crate::unet::{AdditionalResiduals, CrossAttentionContext, UNet2DConditionModel};
use crate::{Error, Result};

/// What the images of a batch are conditioned on, projected to the keys and values of the UNet's cross-attentions once
/// for all steps. With guidance, the first half of the batch is the unconditioned one, as in diffusers.
#[derive(Debug, Clone)]
pub struct Conditioning {
    context: CrossAttentionContext,
    images: usize,
    guided: bool,
    controls: PreparedControls,
}

impl Conditioning {
    /// The prompts of `images` images each without guidance, from the states of their texts.
    ///
    /// # Errors
    /// When there are no texts, or `states` are of another width than the UNet's.
    pub fn conditioned(unet: &UNet2DConditionModel, states: &TextStates, images: usize) -> Result<Self> {
        Self::new(unet, states, images, false)
    }

    /// The prompts of `images` images each with guidance, from the states of twice as many texts: first for each what to
    /// keep away from (the empty text, if nothing), then for each what to show.
    ///
    /// # Errors
    /// When the number of texts is odd or 0, or `states` are of another width than the UNet's.
    pub fn guided(unet: &UNet2DConditionModel, states: &TextStates, images: usize) -> Result<Self> {
        Self::new(unet, states, images, true)
    }

    fn new(unet: &UNet2DConditionModel, states: &TextStates, images: usize, guided: bool) -> Result<Self> {
        let halves = if guided { 2 } else { 1 };
        if states.texts() == 0 || !states.texts().is_multiple_of(halves) {
            return Err(Error::Shape {
                tensor: "hidden_states",
                expected: format!("({}, tokens, width)", if guided { "2 × prompts" } else { "prompts" }),
                found: format!("{:?}", states.hidden_states().dims()),
            });
        }
        let prompts = states.texts() / halves;
        let context = states.project(images, |states, key_bias| unet.project_context(states, key_bias))?;
        Ok(Self { context, images: prompts * images, guided, controls: PreparedControls::default() })
    }

    /// The same, with images that say what to draw.
    pub(crate) fn with_image_prompts(mut self, images: &[ImagePrompt]) -> Result<Self> {
        let project = |image: &ImagePrompt| image.project(self.images, self.guided);
        let images = images.iter().map(project).collect::<Result<_>>()?;
        self.context = self.context.with_images(images);
        Ok(self)
    }

    /// The same, with images that are followed.
    pub(crate) fn with_controls(self, controls: PreparedControls) -> Self {
        Self { controls, ..self }
    }

    /// Whether there are any.
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

    /// The keys and values, of `images` or with guidance twice as many prompts.
    pub fn context(&self) -> &CrossAttentionContext {
        &self.context
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
