//! Sets what to generate, one field after the other.

use candle_core::Tensor;
use image::{GrayImage, RgbImage};

use super::GenerateOptions;
use crate::cancellation::Cancellation;
use crate::control::Control;
use crate::denoising_windows::DenoisingWindows;
use crate::ip_adapter::ImagePrompt;
use crate::prompt::PromptReading;
use crate::random::{BatchPosition, Rng, Seeds};
use crate::schedulers::{SchedulerFactory, SchedulerKind, SigmaSpacing, Steps, TimestepSpacing};
use crate::text_states::TextStates;
use crate::vae::Tiling;

impl GenerateOptions {
    /// Several prompts at a time, each for as many images as [`GenerateOptions::images`] says.
    pub fn prompts<T: Into<String>>(mut self, prompts: impl IntoIterator<Item = T>) -> Self {
        self.prompts = prompts.into_iter().map(Into::into).collect();
        self
    }

    /// Hidden states of the UNet's cross-attention width in place of prompts, one text for each.
    pub fn prompt_states(mut self, states: TextStates) -> Self {
        self.prompt_states = Some(states);
        self
    }

    /// Hidden states in place of the negative prompt: one text for all, or one for each prompt.
    pub fn negative_states(mut self, states: TextStates) -> Self {
        self.negative_states = Some(states);
        self
    }

    /// What the images should keep away from. Without guidance it has no effect.
    pub fn negative_prompt(mut self, negative_prompt: impl Into<String>) -> Self {
        self.negative_prompt = negative_prompt.into();
        self
    }

    /// How both texts are read: as they stand, if not said, or with weights and in windows.
    pub fn prompt_reading(mut self, reading: PromptReading) -> Self {
        self.prompt_reading = reading;
        self
    }

    /// Takes the texts' hidden states from this many layers earlier than the model was trained for. 0 if not given.
    pub fn clip_skip(mut self, layers: usize) -> Self {
        self.clip_skip = layers;
        self
    }

    /// The steps from noise to image: their number, or [`Steps`] themselves for the schedulers that take them.
    pub fn steps(mut self, steps: impl Into<Steps>) -> Self {
        self.steps = steps.into();
        self
    }

    /// How far each step goes beyond what the prompt says, away from the negative prompt (Ho and Salimans 2022,
    /// <https://arxiv.org/abs/2207.12598>). 1 and less means no guidance, at half the work.
    pub fn guidance_scale(mut self, guidance_scale: f64) -> Self {
        self.guidance.scale = guidance_scale;
        self
    }

    /// From 0, nothing (the default), to 1: how much of the harsh contrast that guidance brings is taken back (Lin et al.
    /// 2023, <https://arxiv.org/abs/2305.08891>).
    pub fn guidance_rescale(mut self, rescale: f64) -> Self {
        self.guidance.rescale = rescale;
        self
    }

    /// The scheduler, in place of the one that the model names.
    pub fn scheduler(mut self, scheduler: SchedulerKind) -> Self {
        self.scheduler = Some(scheduler);
        self
    }

    /// A scheduler of your own, or one that is set up in another way than by these options.
    pub fn scheduler_factory(mut self, factory: SchedulerFactory) -> Self {
        self.scheduler_factory = Some(factory);
        self
    }

    /// How the scheduler spreads its noise levels, for those that step in terms of sigma: Karras, above all.
    pub fn sigma_spacing(mut self, spacing: SigmaSpacing) -> Self {
        self.sigma_spacing = Some(spacing);
        self
    }

    /// How the scheduler spreads its steps over the training timesteps.
    pub fn timestep_spacing(mut self, spacing: TimestepSpacing) -> Self {
        self.timestep_spacing = Some(spacing);
        self
    }

    /// How much new noise DDIM adds in each step, from 0 (none, the default) to 1 (as much as DDPM).
    pub fn eta(mut self, eta: f64) -> Self {
        self.eta = eta;
        self
    }

    /// The seed of the noise, 0 if not given. The noise of several images is drawn in one go, and then that of the
    /// steps, where a scheduler adds some: so the same seed gives the same images as in diffusers.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The generator of the noise: PyTorch's on the CPU if not given, or its CUDA one.
    pub fn rng(mut self, rng: Rng) -> Self {
        self.rng = rng;
        self
    }

    /// How the noise of several images comes from the seed: in one stream, as in diffusers, if not given.
    pub fn seeds(mut self, seeds: Seeds) -> Self {
        self.seeds = seeds;
        self
    }

    /// Draws one image, from the noise that it has at this position of a batch.
    pub fn batch_position(mut self, position: BatchPosition) -> Self {
        self.batch_position = Some(position);
        self
    }

    /// Pixels from left to right: a multiple of 8, by default what the model was trained on.
    pub fn width(mut self, width: usize) -> Self {
        self.width = Some(width);
        self
    }

    /// Pixels from top to bottom: a multiple of 8, by default what the model was trained on.
    pub fn height(mut self, height: usize) -> Self {
        self.height = Some(height);
        self
    }

    /// The number of images of each prompt, by default one.
    pub fn images(mut self, images: usize) -> Self {
        self.images = Some(images);
        self
    }

    /// The noise to start from, in place of that of the seed: standard normal, (images, channels, height, width) in
    /// latents. It decides the number and size of the images where nothing else does.
    pub fn initial_latents(mut self, latents: Tensor) -> Self {
        self.initial_latents = Some(latents);
        self
    }

    /// An image to begin with, in place of nothing but noise: it is resized to the size asked for, and else decides that.
    pub fn image(mut self, image: RgbImage) -> Self {
        self.image = Some(image);
        self
    }

    /// Where the image to begin with is drawn anew: where this one, which is resized like it, is at least half white. All
    /// else stays as it is, as far as the model's autoencoder can keep it.
    pub fn mask(mut self, mask: GrayImage) -> Self {
        self.mask = Some(mask);
        self
    }

    /// How much of the image to begin with may change, from 0, nothing, to 1, all of it: the share of the steps that are
    /// done. By default 0.8, and 1 with a mask.
    pub fn strength(mut self, strength: f64) -> Self {
        self.strength = Some(strength);
        self
    }

    /// Denoise in overlapping windows, so that an image that is larger than what the model was trained on does not show the
    /// same thing many times.
    pub fn windows(mut self, windows: DenoisingWindows) -> Self {
        self.windows = Some(windows);
        self
    }

    /// An image to follow, with the ControlNet that does it; several, if called again. Where nothing else does, the first
    /// of them decides the size.
    pub fn control(mut self, control: Control) -> Self {
        self.controls.push(control);
        self
    }

    /// Follow the images of [`control`](Self::control) without regard to the prompt, as far as that goes: the ControlNets
    /// then have no part in what guidance leads away from, and less in details (section 3.5 of
    /// <https://arxiv.org/abs/2302.05543>). A guidance scale from 3 to 5 suits it.
    pub fn guess_mode(mut self, guess_mode: bool) -> Self {
        self.guess_mode = guess_mode;
        self
    }

    /// Images that say beside the prompt what to draw; with several IP-Adapters, if called again.
    pub fn image_prompt(mut self, image_prompt: ImagePrompt) -> Self {
        self.image_prompts.push(image_prompt);
        self
    }

    /// Decode in overlapping tiles, which bounds the memory that a large image takes.
    pub fn tiling(mut self, tiling: Tiling) -> Self {
        self.tiling = Some(tiling);
        self
    }

    /// A switch that ends the run from another thread.
    pub fn cancellation(mut self, cancellation: Cancellation) -> Self {
        self.cancellation = cancellation;
        self
    }
}
