//! Defines the options of a run.

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
use crate::random::{BatchPosition, NoiseFactory, Rng, Seeds};
use crate::schedulers::{SchedulerFactory, SchedulerKind, SigmaSpacing, Steps, TimestepSpacing};
use crate::text_states::TextStates;
use crate::vae::Tiling;

/// What to generate; a prompt is enough:
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
/// Every field can be read, and has a setter of the same name. As JSON, for example in a request to a server, options
/// hold plain data only: tensors, images, models and functions are refused, and so are unknown fields.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
#[must_use]
pub struct GenerateOptions {
    /// The prompts, with [`images`](Self::images) images each.
    pub prompts: Vec<String>,
    /// Hidden states instead of the prompts.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none", serialize_with = "not_data")]
    pub prompt_states: Option<TextStates>,
    /// Hidden states instead of the negative prompt.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none", serialize_with = "not_data")]
    pub negative_states: Option<TextStates>,
    /// The negative prompt.
    pub negative_prompt: String,
    /// How both prompts are read.
    pub prompt_reading: PromptReading,
    /// How many layers before the last the hidden states are taken.
    pub clip_skip: usize,
    /// The denoising steps.
    pub steps: Steps,
    /// How conditional and unconditional predictions are combined.
    pub guidance: Guidance,
    /// Replaces the model's scheduler.
    pub scheduler: Option<SchedulerKind>,
    /// A scheduler of your own.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none", serialize_with = "not_data")]
    pub scheduler_factory: Option<SchedulerFactory>,
    /// The spacing of the noise levels.
    pub sigma_spacing: Option<SigmaSpacing>,
    /// The spacing of the timesteps.
    pub timestep_spacing: Option<TimestepSpacing>,
    /// How much new noise DDIM adds in each step, from 0 to 1.
    pub eta: f64,
    /// The seed of the noise.
    pub seed: u64,
    /// The generator of the noise.
    pub rng: Rng,
    /// How the noise of several images comes from the seed.
    pub seeds: Seeds,
    /// Draws only the image at this position of a batch.
    pub batch_position: Option<BatchPosition>,
    /// Noise of your own, instead of the seed's.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none", serialize_with = "not_data")]
    pub noise_factory: Option<NoiseFactory>,
    /// Width in pixels.
    pub width: Option<usize>,
    /// Height in pixels.
    pub height: Option<usize>,
    /// Images per prompt.
    pub images: Option<usize>,
    /// The initial noise, (images, channels, height, width) in latents.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none", serialize_with = "not_data")]
    pub initial_latents: Option<Tensor>,
    /// The initial image.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none", serialize_with = "not_data")]
    pub image: Option<RgbImage>,
    /// Where the initial image is redrawn.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none", serialize_with = "not_data")]
    pub mask: Option<GrayImage>,
    /// How much of the initial image may change, from 0 to 1.
    pub strength: Option<f64>,
    /// The windows for an image larger than those the model was trained on.
    pub windows: Option<DenoisingWindows>,
    /// ControlNets, with the images they follow.
    #[serde(skip_deserializing, skip_serializing_if = "Vec::is_empty", serialize_with = "not_data")]
    pub controls: Vec<Control>,
    /// Whether to follow these images more than the prompt.
    pub guess_mode: bool,
    /// Images as prompts.
    #[serde(skip_deserializing, skip_serializing_if = "Vec::is_empty", serialize_with = "not_data")]
    pub image_prompts: Vec<ImagePrompt>,
    /// The decoder's tiles.
    pub tiling: Option<Tiling>,
    /// How many times larger the images get along each side once they are drawn.
    pub scale: usize,
    /// A flag that ends the run. It does not affect the images, and is not serialized.
    #[serde(skip)]
    pub cancellation: Cancellation,
}

/// Refuses to serialize what JSON cannot hold, so that nothing is lost silently.
fn not_data<T, S: Serializer>(_: &T, _: S) -> std::result::Result<S::Ok, S::Error> {
    Err(S::Error::custom(
        "options with tensors, images, models or functions cannot be written; leave those out",
    ))
}

/// One image of the empty text, in 50 steps at guidance scale 7.5, with the model's defaults for the rest.
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
            noise_factory: None,
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
            scale: 1,
            cancellation: Cancellation::default(),
        }
    }
}

impl GenerateOptions {
    /// The default number of steps.
    pub const STEPS: usize = 50;
    /// The largest [`scale`](Self::scale).
    pub const LARGEST_SCALE: usize = 4;
    /// The default guidance scale.
    pub const GUIDANCE_SCALE: f64 = Guidance::SCALE;

    /// The number of prompts.
    pub(crate) fn prompt_count(&self) -> usize {
        self.prompt_states.as_ref().map_or(self.prompts.len(), TextStates::texts)
    }

    /// Whether classifier-free guidance is on.
    pub(crate) fn is_guided(&self) -> bool {
        self.guidance.scale > 1.0
    }

    /// The default strength: with a mask, everything under it may change.
    pub fn default_strength(with_mask: bool) -> f64 {
        if with_mask { 1.0 } else { 0.8 }
    }

    /// One image of `prompt`, in 50 steps at guidance scale 7.5, with the model's defaults for the rest.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self { prompts: vec![prompt.into()], ..Self::default() }
    }
}
