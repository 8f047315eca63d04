//! Sets the options of a run, one method per field.

use candle_core::Tensor;
use image::{GrayImage, RgbImage};

use super::GenerateOptions;
use crate::cancellation::Cancellation;
use crate::control::Control;
use crate::denoising_windows::DenoisingWindows;
use crate::ip_adapter::ImagePrompt;
use crate::prompt::PromptReading;
use crate::random::{BatchPosition, NoiseFactory, Rng, Seeds};
use crate::schedulers::{SchedulerFactory, SchedulerKind, SigmaSpacing, Steps, TimestepSpacing};
use crate::text_states::TextStates;
use crate::vae::Tiling;

impl GenerateOptions {
    /// Draws several prompts, [`GenerateOptions::images`] images of each.
    pub fn prompts<T: Into<String>>(mut self, prompts: impl IntoIterator<Item = T>) -> Self {
        self.prompts = prompts.into_iter().map(Into::into).collect();
        self
    }

    /// Replaces the prompts by hidden states of the UNet's cross-attention width, one text per prompt.
    pub fn prompt_states(mut self, states: TextStates) -> Self {
        self.prompt_states = Some(states);
        self
    }

    /// Replaces the negative prompt by hidden states: one text for all, or one per prompt.
    pub fn negative_states(mut self, states: TextStates) -> Self {
        self.negative_states = Some(states);
        self
    }

    /// Says what to keep out of the images. No effect without guidance.
    pub fn negative_prompt(mut self, negative_prompt: impl Into<String>) -> Self {
        self.negative_prompt = negative_prompt.into();
        self
    }

    /// Sets how both prompts are read: literally (the default), or with weights and in chunks.
    pub fn prompt_reading(mut self, reading: PromptReading) -> Self {
        self.prompt_reading = reading;
        self
    }

    /// Takes the hidden states from this many layers before the last one used in training. 0 by default.
    pub fn clip_skip(mut self, layers: usize) -> Self {
        self.clip_skip = layers;
        self
    }

    /// Sets the number of denoising steps, or explicit [`Steps`] for the schedulers that take them.
    pub fn steps(mut self, steps: impl Into<Steps>) -> Self {
        self.steps = steps.into();
        self
    }

    /// Sets how far each step follows the prompt and moves away from the negative prompt (Ho and Salimans 2022,
    /// <https://arxiv.org/abs/2207.12598>). 1 or less means no guidance, at half the work.
    pub fn guidance_scale(mut self, guidance_scale: f64) -> Self {
        self.guidance.scale = guidance_scale;
        self
    }

    /// Sets how much of the contrast added by guidance is removed, from 0 (none, the default) to 1 (Lin et al. 2023,
    /// <https://arxiv.org/abs/2305.08891>).
    pub fn guidance_rescale(mut self, rescale: f64) -> Self {
        self.guidance.rescale = rescale;
        self
    }

    /// Replaces the model's scheduler.
    pub fn scheduler(mut self, scheduler: SchedulerKind) -> Self {
        self.scheduler = Some(scheduler);
        self
    }

    /// Uses a scheduler of your own, or one configured in ways these options do not cover.
    pub fn scheduler_factory(mut self, factory: SchedulerFactory) -> Self {
        self.scheduler_factory = Some(factory);
        self
    }

    /// Sets the spacing of the noise levels, such as Karras', for schedulers that work in sigmas.
    pub fn sigma_spacing(mut self, spacing: SigmaSpacing) -> Self {
        self.sigma_spacing = Some(spacing);
        self
    }

    /// Sets how the steps are spread over the training timesteps.
    pub fn timestep_spacing(mut self, spacing: TimestepSpacing) -> Self {
        self.timestep_spacing = Some(spacing);
        self
    }

    /// Sets how much new noise DDIM adds in each step, from 0 (none, the default) to 1 (as much as DDPM).
    pub fn eta(mut self, eta: f64) -> Self {
        self.eta = eta;
        self
    }

    /// Sets the seed of the noise; 0 by default. The initial noise of all images is drawn at once, followed by that
    /// of the steps if the scheduler is stochastic. So a seed gives the same images as in diffusers.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets which of PyTorch's generators draws the noise: that of the CPU (the default) or CUDA.
    pub fn rng(mut self, rng: Rng) -> Self {
        self.rng = rng;
        self
    }

    /// Sets how the noise of several images comes from the seed: by default in one stream, as in diffusers.
    pub fn seeds(mut self, seeds: Seeds) -> Self {
        self.seeds = seeds;
        self
    }

    /// Draws one image, with the noise it has at this position of a batch.
    pub fn batch_position(mut self, position: BatchPosition) -> Self {
        self.batch_position = Some(position);
        self
    }

    /// Draws the noise from a source of your own, in the order described for [`seed`](Self::seed).
    pub fn noise_factory(mut self, factory: NoiseFactory) -> Self {
        self.noise_factory = Some(factory);
        self
    }

    /// Sets the width in pixels, a multiple of 8. The default is what the model was trained on.
    pub fn width(mut self, width: usize) -> Self {
        self.width = Some(width);
        self
    }

    /// Sets the height in pixels, a multiple of 8. The default is what the model was trained on.
    pub fn height(mut self, height: usize) -> Self {
        self.height = Some(height);
        self
    }

    /// Sets the number of images per prompt; 1 by default.
    pub fn images(mut self, images: usize) -> Self {
        self.images = Some(images);
        self
    }

    /// Replaces the initial noise: standard normal, (images, channels, height, width) in latents. Unless set
    /// otherwise, it also determines the number and size of the images.
    pub fn initial_latents(mut self, latents: Tensor) -> Self {
        self.initial_latents = Some(latents);
        self
    }

    /// Starts from an image instead of pure noise. It is resized to the requested size, or else determines it.
    pub fn image(mut self, image: RgbImage) -> Self {
        self.image = Some(image);
        self
    }

    /// Redraws only where the mask, resized like the image, is at least half white. The rest is kept, as far as the
    /// autoencoder preserves it.
    pub fn mask(mut self, mask: GrayImage) -> Self {
        self.mask = Some(mask);
        self
    }

    /// Sets how much of the initial image may change, from 0 (nothing) to 1 (all of it): the share of the steps that
    /// are run. 0.8 by default, and 1 with a mask.
    pub fn strength(mut self, strength: f64) -> Self {
        self.strength = Some(strength);
        self
    }

    /// Denoises in overlapping windows, so that an image larger than those the model was trained on does not repeat
    /// itself.
    pub fn windows(mut self, windows: DenoisingWindows) -> Self {
        self.windows = Some(windows);
        self
    }

    /// Follows an image with a ControlNet. Call it again to add more. Unless set otherwise, the first image
    /// determines the size.
    pub fn control(mut self, control: Control) -> Self {
        self.controls.push(control);
        self
    }

    /// Follows the images of [`control`](Self::control) more than the prompt: the ControlNets skip the unconditional
    /// half of guidance, and their residuals get weaker at higher resolutions (section 3.5 of
    /// <https://arxiv.org/abs/2302.05543>). Guidance scales from 3 to 5 suit it.
    pub fn guess_mode(mut self, guess_mode: bool) -> Self {
        self.guess_mode = guess_mode;
        self
    }

    /// Adds images as a prompt beside the text. Call it again to add another IP-Adapter.
    pub fn image_prompt(mut self, image_prompt: ImagePrompt) -> Self {
        self.image_prompts.push(image_prompt);
        self
    }

    /// Decodes in overlapping tiles, which limits the memory for large images.
    pub fn tiling(mut self, tiling: Tiling) -> Self {
        self.tiling = Some(tiling);
        self
    }

    /// Enlarges the drawn images along each side, 1 (not at all, the default) to 4 times: by the model's upscaler, if it has
    /// one, or else by Lanczos interpolation.
    pub fn scale(mut self, scale: usize) -> Self {
        self.scale = scale;
        self
    }

    /// Sets a flag that can end the run from another thread.
    pub fn cancellation(mut self, cancellation: Cancellation) -> Self {
        self.cancellation = cancellation;
        self
    }
}
