//! What to generate.

use candle_core::Tensor;

use crate::schedulers::SchedulerKind;

/// What to generate, from a text alone up to every detail:
///
/// ```
/// use altdiffusion_pipeline::{GenerateOptions, schedulers::SchedulerKind};
///
/// let options = GenerateOptions::new("一只戴帽子的小狗")
///     .negative_prompt("模糊")
///     .scheduler(SchedulerKind::EulerDiscrete)
///     .steps(30)
///     .seed(7)
///     .pictures(4);
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct GenerateOptions {
    pub(crate) prompt: String,
    pub(crate) negative_prompt: String,
    pub(crate) steps: usize,
    pub(crate) guidance_scale: f64,
    pub(crate) scheduler: Option<SchedulerKind>,
    pub(crate) seed: u64,
    pub(crate) width: Option<usize>,
    pub(crate) height: Option<usize>,
    pub(crate) pictures: Option<usize>,
    pub(crate) initial_latents: Option<Tensor>,
}

impl GenerateOptions {
    /// One picture of `prompt`, in 50 steps with a guidance scale of 7.5, and otherwise as the model would have it.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self {
            prompt: prompt.into(),
            negative_prompt: String::new(),
            steps: 50,
            guidance_scale: 7.5,
            scheduler: None,
            seed: 0,
            width: None,
            height: None,
            pictures: None,
            initial_latents: None,
        }
    }

    /// What the pictures should keep away from. Without guidance it has no effect.
    pub fn negative_prompt(mut self, negative_prompt: impl Into<String>) -> Self {
        self.negative_prompt = negative_prompt.into();
        self
    }

    /// The number of steps from noise to picture.
    pub fn steps(mut self, steps: usize) -> Self {
        self.steps = steps;
        self
    }

    /// How far each step goes beyond what the prompt says, away from the negative prompt (Ho and Salimans 2022,
    /// <https://arxiv.org/abs/2207.12598>). 1 and less means no guidance, at half the work.
    pub fn guidance_scale(mut self, guidance_scale: f64) -> Self {
        self.guidance_scale = guidance_scale;
        self
    }

    /// The scheduler, in place of the one that the model names.
    pub fn scheduler(mut self, scheduler: SchedulerKind) -> Self {
        self.scheduler = Some(scheduler);
        self
    }

    /// The seed of the first picture's noise, 0 if not given; picture i has that of `seed + i`.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
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

    /// The number of pictures, by default one.
    pub fn pictures(mut self, pictures: usize) -> Self {
        self.pictures = Some(pictures);
        self
    }

    /// The noise to start from, in place of that of the seed: standard normal, (pictures, channels, height, width) in
    /// latents. It decides the number and size of the pictures where nothing else does.
    pub fn initial_latents(mut self, latents: Tensor) -> Self {
        self.initial_latents = Some(latents);
        self
    }
}
