//! Says what to generate.

mod builder;
#[cfg(test)]
mod tests;

use candle_core::Tensor;
use image::{GrayImage, RgbImage};
use serde::ser::Error as _;
use serde::{Deserialize, Serialize, Serializer};

use crate::cancellation::Cancellation;
use crate::control::Control;
use crate::denoising_windows::DenoisingWindows;
use crate::guidance::Guidance;
use crate::ip_adapter::ImagePrompt;
use crate::prompt::PromptReading;
use crate::random::{BatchPosition, Rng, Seeds};
use crate::schedulers::{SchedulerFactory, SchedulerKind, SigmaSpacing, Steps, TimestepSpacing};
use crate::text_states::TextStates;
use crate::vae::Tiling;

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
///     .images(4);
/// ```
/// Each field can be read, and is set by the method of its name. As JSON, a request of a server for example, options are
/// what can be written as such: tensors, images, models and functions are refused, and so are unknown fields.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
#[must_use]
pub struct GenerateOptions {
    /// The prompts, each for as many images as [`images`](Self::images) says.
    pub prompts: Vec<String>,
    /// Hidden states in place of the prompts.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none", serialize_with = "not_data")]
    pub prompt_states: Option<TextStates>,
    /// Hidden states in place of the negative prompt.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none", serialize_with = "not_data")]
    pub negative_states: Option<TextStates>,
    /// What the images should keep away from.
    pub negative_prompt: String,
    /// How both texts are read.
    pub prompt_reading: PromptReading,
    /// How many layers earlier the texts' hidden states are taken.
    pub clip_skip: usize,
    /// The steps from noise to image.
    pub steps: Steps,
    /// How the predictions with and without the prompt are combined.
    pub guidance: Guidance,
    /// The scheduler, in place of the model's.
    pub scheduler: Option<SchedulerKind>,
    /// A scheduler of the caller's.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none", serialize_with = "not_data")]
    pub scheduler_factory: Option<SchedulerFactory>,
    /// How the scheduler spreads its noise levels.
    pub sigma_spacing: Option<SigmaSpacing>,
    /// How the scheduler spreads its steps over the training timesteps.
    pub timestep_spacing: Option<TimestepSpacing>,
    /// How much new noise DDIM adds in each step, 0 to 1.
    pub eta: f64,
    /// The seed of the noise.
    pub seed: u64,
    /// The generator of the noise.
    pub rng: Rng,
    /// How the noise of several images comes from the seed.
    pub seeds: Seeds,
    /// The position in a batch whose noise is drawn.
    pub batch_position: Option<BatchPosition>,
    /// Pixels from left to right.
    pub width: Option<usize>,
    /// Pixels from top to bottom.
    pub height: Option<usize>,
    /// The number of images of each prompt.
    pub images: Option<usize>,
    /// The noise to start from, (images, channels, height, width) in latents.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none", serialize_with = "not_data")]
    pub initial_latents: Option<Tensor>,
    /// An image to begin with.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none", serialize_with = "not_data")]
    pub image: Option<RgbImage>,
    /// Where the image to begin with is drawn anew.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none", serialize_with = "not_data")]
    pub mask: Option<GrayImage>,
    /// How much of the image to begin with may change, 0 to 1.
    pub strength: Option<f64>,
    /// The windows of an image that is larger than what the model was trained on.
    pub windows: Option<DenoisingWindows>,
    /// The images to follow.
    #[serde(skip_deserializing, skip_serializing_if = "Vec::is_empty", serialize_with = "not_data")]
    pub controls: Vec<Control>,
    /// Whether the images to follow count more than the prompt.
    pub guess_mode: bool,
    /// The images that say what to draw.
    #[serde(skip_deserializing, skip_serializing_if = "Vec::is_empty", serialize_with = "not_data")]
    pub image_prompts: Vec<ImagePrompt>,
    /// The tiles in which the decoder works.
    pub tiling: Option<Tiling>,
    /// The switch that ends the run. It says nothing about the images, and is left out of what is written.
    #[serde(skip)]
    pub cancellation: Cancellation,
}

/// Refuses to write what a file of options cannot hold, so that nothing is lost without a word.
fn not_data<T, S: Serializer>(_: &T, _: S) -> std::result::Result<S::Ok, S::Error> {
    Err(S::Error::custom(
        "options with tensors, images, models or functions cannot be written; leave those out",
    ))
}

/// One image of the empty text, in 50 steps with a guidance scale of 7.5, and otherwise as the model would have it.
impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            prompts: vec![String::new()],
            prompt_states: None,
            negative_states: None,
            negative_prompt: String::new(),
            prompt_reading: PromptReading::Plain,
            clip_skip: 0,
            steps: Steps::Count(Self::STEPS),
            guidance: Guidance::default(),
            scheduler: None,
            scheduler_factory: None,
            sigma_spacing: None,
            timestep_spacing: None,
            eta: 0.0,
            seed: 0,
            rng: Rng::Cpu,
            seeds: Seeds::Stream,
            batch_position: None,
            width: None,
            height: None,
            images: None,
            initial_latents: None,
            image: None,
            mask: None,
            strength: None,
            windows: None,
            controls: Vec::new(),
            guess_mode: false,
            image_prompts: Vec::new(),
            tiling: None,
            cancellation: Cancellation::default(),
        }
    }
}

impl GenerateOptions {
    /// The steps, if nobody says how many.
    pub const STEPS: usize = 50;
    /// The guidance scale, if nobody says which.
    pub const GUIDANCE_SCALE: f64 = Guidance::SCALE;

    /// How many prompts there are.
    pub(crate) fn prompt_count(&self) -> usize {
        self.prompt_states.as_ref().map_or(self.prompts.len(), TextStates::texts)
    }

    /// Whether each step goes beyond what the prompt says.
    pub(crate) fn is_guided(&self) -> bool {
        self.guidance.scale > 1.0
    }

    /// The strength, if nobody says which: with a mask, all of what it covers may change.
    pub fn default_strength(with_mask: bool) -> f64 {
        if with_mask { 1.0 } else { 0.8 }
    }

    /// One image of `prompt`, in 50 steps with a guidance scale of 7.5, and otherwise as the model would have it.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self { prompts: vec![prompt.into()], ..Self::default() }
    }
}
