//! Draws images of texts: text encoder, sampling loop and decoder in one.

mod component;
mod control;
mod initial_state;
mod limits;
mod load;
mod load_options;
mod size;
mod texts;

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use altclip_encoder::text_encoder::{TextEncoder, TextEncoderConfig};
use altclip_encoder::tokenizer::Tokenizer;
use candle_core::{Device, Tensor};
use image::RgbImage;
use model_files::checkpoint::Checkpoint;

use crate::denoise::{DenoiseOptions, Denoised, denoise};
use crate::denoising_windows::DenoisingWindows;
use crate::images::{channels_last_to_images, to_images};
use crate::latent_preview::LatentPreview;
use crate::options::GenerateOptions;
use crate::progress::{Progress, Step};
use crate::random::{BatchPosition, Noise};
use crate::safety_checker::SafetyChecker;
use crate::schedulers::{Scheduler, SchedulerConfig};
use crate::unet::{UNet2DConditionConfig, UNet2DConditionModel};
use crate::vae::{AutoencoderKl, AutoencoderKlConfig, Tiling};
use crate::{Error, Result};
use component::Component;
use limits::MOST_IMAGES;
pub use load_options::LoadOptions;

/// A loaded AltDiffusion model. It does not change while it generates, so that threads can share it.
#[derive(Debug)]
pub struct AltDiffusion {
    tokenizer: Tokenizer,
    prompt_tokens: usize,
    configs: Configs,
    text_encoder: Component<TextEncoder>,
    unet: Component<UNet2DConditionModel>,
    /// The weights of the UNet without LoRAs, for ControlNets that are told as differences from them.
    unet_weights: Checkpoint,
    vae: Component<AutoencoderKl>,
    safety_checker: Option<Component<SafetyChecker>>,
    scheduler: SchedulerConfig,
    device: Device,
    load_time: Duration,
}

/// What the parts were made from.
#[derive(Debug)]
struct Configs {
    text_encoder: TextEncoderConfig,
    unet: UNet2DConditionConfig,
    vae: AutoencoderKlConfig,
}

/// Images, with what led to them.
#[derive(Debug, Clone)]
pub struct Generated {
    /// The images. Those that the safety checker flagged are black.
    pub images: Vec<RgbImage>,
    /// Whether the safety checker flagged each image, where the model has one.
    pub flagged: Option<Vec<bool>>,
    /// Their latents before decoding, (images, channels, height, width), f32.
    pub latents: Tensor,
    /// What took how long.
    pub timings: Timings,
}

/// What took how long.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timings {
    /// Encoding the texts and projecting them for the UNet.
    pub text: Duration,
    /// Each call of the UNet, with the scheduler's step.
    pub steps: Vec<Duration>,
    /// Decoding the latents.
    pub decode: Duration,
    /// All of it, without loading the model.
    pub total: Duration,
}

impl AltDiffusion {
    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The tokens that prompts are padded and cut to.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// The text encoder. Clones of it share their weights.
    ///
    /// # Errors
    /// When it has to be read, as with [`LoadOptions::low_memory`], and cannot be.
    pub fn text_encoder(&self) -> Result<Cow<'_, TextEncoder>> {
        self.text_encoder.get()
    }

    /// The denoising model. Clones of it share their weights.
    ///
    /// # Errors
    /// When it has to be read, as with [`LoadOptions::low_memory`], and cannot be.
    pub fn unet(&self) -> Result<Cow<'_, UNet2DConditionModel>> {
        self.unet.get()
    }

    /// The autoencoder. Clones of it share their weights.
    ///
    /// # Errors
    /// When it has to be read, as with [`LoadOptions::low_memory`], and cannot be.
    pub fn vae(&self) -> Result<Cow<'_, AutoencoderKl>> {
        self.vae.get()
    }

    /// The configuration of the text encoder.
    pub fn text_encoder_config(&self) -> &TextEncoderConfig {
        &self.configs.text_encoder
    }

    /// The configuration of the denoising model.
    pub fn unet_config(&self) -> &UNet2DConditionConfig {
        &self.configs.unet
    }

    /// The configuration of the autoencoder.
    pub fn vae_config(&self) -> &AutoencoderKlConfig {
        &self.configs.vae
    }

    /// What images are checked with before they are handed out, if the model has it and it was not left out.
    ///
    /// # Errors
    /// When it has to be read, as with [`LoadOptions::low_memory`], and cannot be.
    pub fn safety_checker(&self) -> Result<Option<Cow<'_, SafetyChecker>>> {
        self.safety_checker.as_ref().map(Component::get).transpose()
    }

    /// The noise levels, as [`SchedulerConfig::for_latents`] corrects them.
    pub fn scheduler(&self) -> &SchedulerConfig {
        &self.scheduler
    }

    /// Where the model computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What turns latents into small images without the decoder.
    ///
    /// # Errors
    /// When decoding fails.
    pub fn latent_preview(&self) -> Result<LatentPreview> {
        LatentPreview::new(&*self.vae()?, &self.device)
    }

    /// How long loading took.
    pub fn load_time(&self) -> Duration {
        self.load_time
    }

    /// Images of a text.
    ///
    /// # Errors
    /// When an option cannot be met, or the numbers get out of range on the way.
    pub fn generate(&self, options: &GenerateOptions) -> Result<Generated> {
        self.generate_with(options, |_| ControlFlow::Continue(()))
    }

    /// The same, with a callback after each step, which may end it.
    ///
    /// # Errors
    /// Also [`Error::Cancelled`], when `on_step` breaks.
    pub fn generate_with(
        &self,
        options: &GenerateOptions,
        mut on_step: impl FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> Result<Generated> {
        self.generate_observed(options, |progress| match progress {
            Progress::Step(step) => on_step(step),
            Progress::Denoising { .. } | Progress::Decoding { .. } => ControlFlow::Continue(()),
        })
    }

    /// The same, with a callback that hears of every stage, and may end the run there.
    ///
    /// # Errors
    /// Also [`Error::Cancelled`], when `on_progress` breaks.
    pub fn generate_observed(
        &self,
        options: &GenerateOptions,
        mut on_progress: impl FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<Generated> {
        let start = Instant::now();
        // What can be wrong with the options comes out before the work begins.
        let mut scheduler = self.build_scheduler(options)?;
        let guidance = options.guidance;
        if !guidance.scale.is_finite() {
            let problem = format!("{}, expected a number", guidance.scale);
            return Err(Error::option("guidance scale", problem));
        }
        if !(0.0..=1.0).contains(&guidance.rescale) {
            let problem = format!("{}, expected a number from 0 to 1", guidance.rescale);
            return Err(Error::option("guidance rescale", problem));
        }
        let denoise_options = DenoiseOptions { guidance, windows: options.windows };
        denoise_options.windows.iter().try_for_each(DenoisingWindows::check)?;
        if denoise_options.windows.is_some() && !options.controls.is_empty() {
            let problem =
                "cannot be used with a control image, which is followed as a whole; leave one of them out";
            return Err(Error::option("denoising windows", problem));
        }
        self.check_controls(options)?;
        options.image_prompts.iter().try_for_each(|prompt| prompt.check(self.unet_config()))?;
        let mut noise = self.noise(options)?;
        let run_start = self.start(options, scheduler.as_ref(), noise.as_mut())?;
        let texts = self.read_texts(options)?;
        let unet = self.unet()?;
        let images_per_prompt = run_start.latents.dim(0)? / options.prompt_count();
        let conditioning = texts.project(&unet, images_per_prompt)?;
        let conditioning =
            conditioning.with_controls(self.controls(options, texts.states(), images_per_prompt)?);
        let conditioning = conditioning.with_image_prompts(&options.image_prompts)?;
        self.device.synchronize()?;
        let text = start.elapsed();

        let total = scheduler.timesteps().len().saturating_sub(run_start.first_index);
        if on_progress(Progress::Denoising { steps: total }).is_break() {
            return Err(Error::Cancelled { completed: 0, total });
        }
        let on_step = |step: Step<'_>| on_progress(Progress::Step(step));
        let Denoised { latents, steps } = denoise(
            &unet,
            scheduler.as_mut(),
            &conditioning,
            denoise_options,
            run_start,
            noise.as_mut(),
            on_step,
        )?;
        // With little memory, before the autoencoder comes into it.
        drop((unet, conditioning));

        let decoding = Instant::now();
        let mut images = self.decode_with(&latents, options.tiling, |image, images| {
            match on_progress(Progress::Decoding { image, images }) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(Error::Cancelled { completed: total, total }),
            }
        })?;
        let flagged = self.black_out(&mut images)?;
        let timings = Timings { text, steps, decode: decoding.elapsed(), total: start.elapsed() };
        Ok(Generated { images, flagged, latents, timings })
    }

    /// Makes the images black that the safety checker flags, and says which, if there is one.
    fn black_out(&self, images: &mut [RgbImage]) -> Result<Option<Vec<bool>>> {
        let Some(checker) = self.safety_checker()? else { return Ok(None) };
        let flagged = checker.check(images)?;
        for (image, _) in images.iter_mut().zip(&flagged).filter(|(_, flagged)| **flagged) {
            image.fill(0);
        }
        Ok(Some(flagged))
    }

    /// The noise of the run.
    fn noise(&self, options: &GenerateOptions) -> Result<Box<dyn Noise>> {
        let [count, ..] = self.latent_shape(options)?;
        let GenerateOptions { rng, seed, seeds, .. } = *options;
        let Some(position) = options.batch_position else { return Ok(seeds.noise(rng, seed, count)) };
        let BatchPosition { index, images } = position;
        if count != 1 || index >= images || images > MOST_IMAGES {
            let problem = format!(
                "{index} of {images} for {count} images; expected one image, and a position below the number in the \
                 batch, which is at most {MOST_IMAGES}"
            );
            return Err(Error::option("batch position", problem));
        }
        Ok(seeds.noise_at(rng, seed, position))
    }

    /// The model's scheduler, as the options would have it.
    fn build_scheduler(&self, options: &GenerateOptions) -> Result<Box<dyn Scheduler>> {
        let mut config = self.scheduler.clone();
        if let Some(kind) = options.scheduler {
            config = config.with_kind(kind);
        }
        if let Some(spacing) = options.sigma_spacing {
            config = config.with_sigma_spacing(spacing)?;
        }
        if let Some(spacing) = options.timestep_spacing {
            config = config.with_timestep_spacing(spacing)?;
        }
        config.with_eta(options.eta)?.build_for(&options.steps)
    }

    /// Decodes latents (images, channels, height, width) as the UNet knows them, one image after the other, which
    /// bounds the memory that the decoder needs.
    ///
    /// # Errors
    /// When they have another shape, or decode to NaN or infinity.
    pub fn decode(&self, latents: &Tensor) -> Result<Vec<RgbImage>> {
        self.decode_with(latents, None, |_, _| Ok(()))
    }

    /// `before_each` is told which image comes next, from 0, and of how many.
    fn decode_with(
        &self,
        latents: &Tensor,
        tiling: Option<Tiling>,
        mut before_each: impl FnMut(usize, usize) -> Result<()>,
    ) -> Result<Vec<RgbImage>> {
        let count = latents.dim(0)?;
        before_each(0, count)?;
        let vae = self.vae()?;
        let latents = (latents / vae.scaling_factor())?;
        let mut images = Vec::with_capacity(count);
        for index in 0..count {
            if index > 0 {
                before_each(index, count)?;
            }
            let latents = latents.narrow(0, index, 1)?;
            images.extend(match tiling {
                Some(tiling) => to_images(&vae.decode_tiled(&latents, tiling)?)?,
                // In the type that the decoder has: eight bits are fewer.
                None => channels_last_to_images(&vae.decode_pixels(&latents)?)?,
            });
        }
        Ok(images)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_can_be_shared_by_threads() {
        fn assert_shared<T: Send + Sync>() {}
        assert_shared::<AltDiffusion>();
    }
}
