//! Draws samples during training, as one image.

use crate::contact_sheet::contact_sheet;
use crate::error::Result;
use altclip_encoder::conditioner::Conditioner;
use altclip_encoder::tokenizer::Tokenizer;
use altdiffusion_pipeline::random::{Noise, TorchCpu};
use altdiffusion_pipeline::schedulers::SchedulerConfig;
use altdiffusion_pipeline::unet::UNet2DConditionModel;
use altdiffusion_pipeline::vae::AutoencoderKl;
use altdiffusion_pipeline::{
    Conditioning, DenoiseOptions, Guidance, PROMPT_TOKENS, Start, TextStates, denoise,
};
use candle_core::Tensor;
use image::RgbImage;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

/// Images per row.
const COLUMNS: usize = 8;

/// What to draw, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleSheet {
    /// A prompt per image.
    pub prompts: Vec<String>,
    /// Steps per image.
    pub steps: usize,
    /// The scale of classifier-free guidance.
    pub guidance_scale: f64,
}

/// The parts of a model other than its UNet.
pub struct DrawingParts<'a> {
    /// The tokenizer of the texts.
    pub tokenizer: &'a Tokenizer,
    /// The text encoder that conditions the UNet.
    pub text_encoder: &'a dyn Conditioner,
    /// The autoencoder.
    pub vae: &'a AutoencoderKl,
    /// The noise levels, and what the UNet predicts.
    pub scheduler: &'a SchedulerConfig,
}

impl SampleSheet {
    /// Draws each prompt once, in the size of `latents` (n, channels, height, width).
    ///
    /// # Errors
    /// If there is no prompt, or a part of the model fails.
    pub fn draw(
        &self,
        model: &DrawingParts,
        unet: &UNet2DConditionModel,
        latents: &Tensor,
        seed: u64,
    ) -> Result<RgbImage> {
        let (_, channels, height, width) = latents.dims4()?;
        let mut images = Vec::new();
        for (i, prompt) in self.prompts.iter().enumerate() {
            let states =
                TextStates::encode(model.tokenizer, model.text_encoder, &["", prompt], PROMPT_TOKENS)?;
            let mut conditioning = Conditioning::guided(unet, &states, 1)?;
            let mut scheduler = model.scheduler.build(self.steps)?;
            let mut noise = TorchCpu::new(seed + i as u64);
            let start = Start::from_noise(scheduler.as_ref(), &noise.normal(&[1, channels, height, width])?)?;
            let options = DenoiseOptions { guidance: Guidance::new(self.guidance_scale), windows: None };
            let done = denoise(&mut conditioning, scheduler.as_mut(), options, start, &mut noise, |_| {
                ControlFlow::Continue(())
            })?;
            let decoded = model.vae.decode(&(done.latents / model.vae.scaling_factor())?.detach())?;
            images.push(decoded.permute((0, 2, 3, 1))?.contiguous()?);
        }
        contact_sheet(&Tensor::cat(&images, 0)?, COLUMNS)
    }
}
