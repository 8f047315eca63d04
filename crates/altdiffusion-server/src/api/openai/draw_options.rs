//! Turns a request's fields into options for drawing, within the server's limits.

use altdiffusion_pipeline::image_metadata::ImageFileFormat;
use altdiffusion_pipeline::schedulers::{Sampler, SchedulerKind};
use altdiffusion_pipeline::{GenerateOptions, PromptReading};
use serde::Deserialize;
use utoipa::ToSchema;

use super::drawn_size::{DrawnSize, ModelSize};
use crate::api::inputs::check_text;
use crate::drawing::{ControlImage, DrawRequest, DrawingQueue, NamedLora};
use crate::image_data::{self, GivenImage};
use crate::problem::Problem;
use crate::state::Shared;

/// The largest guidance scale, and strength of a LoRA or a ControlNet.
const LARGEST_FACTOR: f64 = 1000.0;

/// A LoRA that the server offers.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoraField {
    name: String,
    /// 1 as it was trained, 0 not at all.
    #[serde(default)]
    strength: Option<f64>,
}

/// An image that a ControlNet of the server follows.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ControlField {
    model: String,
    /// In base64, or a data URI.
    image: String,
    #[serde(default)]
    strength: Option<f64>,
    /// The share of the steps at which it begins.
    #[serde(default)]
    start: Option<f64>,
    /// The share of the steps at which it ends.
    #[serde(default)]
    end: Option<f64>,
}

/// What every request for images can say.
#[derive(Debug, Default)]
pub(crate) struct DrawFields {
    pub(crate) prompt: String,
    pub(crate) negative_prompt: Option<String>,
    pub(crate) n: Option<usize>,
    /// The image's (width, height) in pixels; with a scale, before it is enlarged.
    pub(crate) size: Option<(usize, usize)>,
    /// How many times larger the image gets.
    pub(crate) scale: Option<usize>,
    pub(crate) seed: Option<u64>,
    pub(crate) steps: Option<usize>,
    pub(crate) guidance_scale: Option<f64>,
    pub(crate) guidance_rescale: Option<f64>,
    pub(crate) scheduler: Option<String>,
    pub(crate) clip_skip: Option<usize>,
    pub(crate) prompt_weights: bool,
    pub(crate) image: Option<GivenImage>,
    pub(crate) mask: Option<GivenImage>,
    pub(crate) strength: Option<f64>,
    pub(crate) loras: Vec<NamedLora>,
    pub(crate) controls: Vec<ControlImage>,
    pub(crate) format: Option<ImageFileFormat>,
    /// The quality of a JPEG, from 1 to 100.
    pub(crate) quality: Option<u8>,
}

impl DrawFields {
    /// What to draw with this model.
    ///
    /// # Errors
    /// If a value is out of range.
    pub(crate) fn request(self, state: &Shared, queue: &DrawingQueue) -> Result<DrawRequest, Problem> {
        let limits = &state.options.limits;
        check_text(state, "prompt", &self.prompt)?;
        let negative_prompt = self.negative_prompt.unwrap_or_default();
        check_text(state, "negative_prompt", &negative_prompt)?;
        let images = within("n", self.n.unwrap_or(1), 1, limits.images)?;
        let default_steps = queue.model.steps.min(limits.steps);
        let steps = within("steps", self.steps.unwrap_or(default_steps), 1, limits.steps)?;
        let guidance_scale = self.guidance_scale.unwrap_or(queue.model.guidance_scale);
        let guidance_scale = factor("guidance_scale", guidance_scale)?;
        let mut options = GenerateOptions::new(self.prompt).negative_prompt(negative_prompt);
        options =
            options.steps(steps).guidance_scale(guidance_scale).seed(self.seed.unwrap_or_else(random_seed));
        let scale = self.scale.map(|scale| within("scale", scale, 1, GenerateOptions::LARGEST_SCALE));
        let model = ModelSize { sides: queue.status.default_size.get().copied(), scale: queue.model.scale };
        let drawn = DrawnSize::of(self.size, scale.transpose()?, model, limits.side)?;
        if let Some((width, height)) = drawn.sides {
            options = options.width(width).height(height);
        }
        options = options.scale(drawn.scale);
        if let Some(rescale) = self.guidance_rescale {
            options = options.guidance_rescale(share("guidance_rescale", rescale)?);
        }
        if let Some(name) = &self.scheduler {
            options = with_sampler(options, "scheduler", name)?;
        }
        if let Some(layers) = self.clip_skip {
            options = options.clip_skip(layers);
        }
        if self.prompt_weights {
            options = options.prompt_reading(PromptReading::Weighted);
        }
        match (&self.image, &self.mask, self.strength) {
            (None, Some(_), _) => return Err(Problem::field("mask", "expected an image with it")),
            (None, None, Some(_)) => return Err(Problem::field("strength", "expected an image with it")),
            _ => {}
        }
        if let Some(strength) = self.strength {
            options = options.strength(share("strength", strength)?);
        }
        if let Some(image) = &self.image {
            options = options.image(image_data::rgb(&image.image));
        }
        if let Some(mask) = &self.mask {
            options = options.mask(image_data::mask(&mask.image));
        }
        Ok(DrawRequest {
            options,
            images,
            format: self.format.unwrap_or(ImageFileFormat::Png),
            quality: self.quality,
            loras: self.loras,
            controls: self.controls,
            area: None,
            previews: None,
            keeps_interrupted: false,
            rooms: self.image.into_iter().chain(self.mask).map(|given| given.room).collect(),
        })
    }
}

/// Adds a scheduler, a spacing of noise levels, or both.
///
/// # Errors
/// If the name is not known.
pub(crate) fn with_sampler(
    mut options: GenerateOptions,
    field: &str,
    name: &str,
) -> Result<GenerateOptions, Problem> {
    let sampler: Sampler = name.parse().map_err(|_| {
        let known: Vec<_> = SchedulerKind::ALL.into_iter().map(SchedulerKind::name).collect();
        Problem::field(field, format!("{name:?}, expected one of {}", known.join(", ")))
    })?;
    if let Some(kind) = sampler.kind {
        options = options.scheduler(kind);
    }
    if let Some(spacing) = sampler.spacing {
        options = options.sigma_spacing(spacing);
    }
    Ok(options)
}

/// Checks a number.
///
/// # Errors
/// If it is out of range.
pub(crate) fn within(field: &str, value: usize, least: usize, most: usize) -> Result<usize, Problem> {
    match (least..=most).contains(&value) {
        true => Ok(value),
        false => Err(Problem::field(field, format!("{value}, expected {least} to {most}"))),
    }
}

/// Checks a share of the whole.
///
/// # Errors
/// If it is not from 0 to 1.
pub(crate) fn share(field: &str, value: f64) -> Result<f64, Problem> {
    match (0.0..=1.0).contains(&value) {
        true => Ok(value),
        false => Err(Problem::field(field, format!("{value}, expected 0 to 1"))),
    }
}

/// Checks a factor such as a guidance scale: beyond this size the image's numbers overflow.
///
/// # Errors
/// If it is out of range.
pub(crate) fn factor(field: &str, value: f64) -> Result<f64, Problem> {
    match value.abs() <= LARGEST_FACTOR {
        true => Ok(value),
        false => {
            let problem = format!("{value}, expected {} to {LARGEST_FACTOR}", -LARGEST_FACTOR);
            Err(Problem::field(field, problem))
        }
    }
}

/// A seed that JavaScript can hold exactly.
pub(crate) fn random_seed() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0 & 0xffff_ffff
}

/// Reads `WIDTHxHEIGHT`; `auto` is the model's size.
///
/// # Errors
/// If it is neither.
pub(crate) fn size(text: &str) -> Result<Option<(usize, usize)>, Problem> {
    if text == "auto" {
        return Ok(None);
    }
    let sides =
        text.split_once('x').and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
    let problem = || Problem::field("size", format!("{text:?}, expected auto or a size such as 512x512"));
    sides.ok_or_else(problem).map(Some)
}

/// Reads `png`, `jpeg` or `webp`.
///
/// # Errors
/// If it is another.
pub(crate) fn format(text: &str) -> Result<ImageFileFormat, Problem> {
    match text {
        "png" => Ok(ImageFileFormat::Png),
        "jpeg" | "jpg" => Ok(ImageFileFormat::Jpeg),
        "webp" => Ok(ImageFileFormat::WebP),
        _ => Err(Problem::field("output_format", format!("{text:?}, expected png, jpeg or webp"))),
    }
}

/// The LoRAs of a request.
///
/// # Errors
/// If the server does not offer one of them.
pub(crate) fn loras(state: &Shared, fields: Vec<LoraField>) -> Result<Vec<NamedLora>, Problem> {
    let known = state.folders.lora_names();
    let lora = |field: LoraField| {
        if !known.contains(&field.name) {
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(Problem::field("loras", format!("{:?}, expected one of: {known}", field.name)));
        }
        let strength = factor("loras", field.strength.unwrap_or(1.0))?;
        Ok(NamedLora { name: field.name, strength })
    };
    fields.into_iter().map(lora).collect()
}

/// The images that ControlNets follow.
///
/// # Errors
/// If an image cannot be decoded, or the server does not offer one of the ControlNets.
pub(crate) async fn controls(
    state: &Shared,
    fields: Vec<ControlField>,
) -> Result<Vec<ControlImage>, Problem> {
    let known = state.folders.controlnet_names();
    let mut controls = Vec::with_capacity(fields.len());
    for (index, field) in fields.into_iter().enumerate() {
        if !known.contains(&field.model) {
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let problem = format!("{:?}, expected one of: {known}", field.model);
            return Err(Problem::field(&format!("controls[{index}].model"), problem));
        }
        let name = format!("controls[{index}]");
        let given = GivenImage::of_text(&state.decoding, &format!("{name}.image"), field.image).await?;
        controls.push(ControlImage {
            model: field.model,
            image: image_data::rgb(&given.image),
            room: given.room,
            scale: factor(&format!("{name}.strength"), field.strength.unwrap_or(1.0))?,
            start: share(&format!("{name}.start"), field.start.unwrap_or(0.0))?,
            end: share(&format!("{name}.end"), field.end.unwrap_or(1.0))?,
        });
    }
    Ok(controls)
}
