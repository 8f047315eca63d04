//! Reads a request as stable-diffusion-webui's clients send it.

use std::ops::RangeInclusive;

use altdiffusion_pipeline::GenerateOptions;
use altdiffusion_pipeline::image_metadata::ImageFileFormat;
use altdiffusion_pipeline::schedulers::{SchedulerKind, SigmaSpacing};
use image::imageops;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::unsupported::is_empty;
use crate::api::openai::draw_options::{DrawFields, factor, random_seed, share, with_sampler};
use crate::drawing::{ControlImage, DrawRequest, DrawingQueue, NamedLora, RedrawnArea};
use crate::image_data::{self, GivenImage};
use crate::problem::Problem;
use crate::state::Shared;
use crate::whole_number::whole_number;

/// A request for images.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub(crate) struct WebuiRequest {
    pub(super) prompt: Option<String>,
    pub(super) negative_prompt: Option<String>,
    /// -1 for a random one.
    #[serde(deserialize_with = "whole_number")]
    pub(super) seed: Option<i64>,
    #[serde(deserialize_with = "whole_number")]
    pub(super) steps: Option<usize>,
    pub(super) cfg_scale: Option<f64>,
    #[serde(deserialize_with = "whole_number")]
    pub(super) width: Option<usize>,
    #[serde(deserialize_with = "whole_number")]
    pub(super) height: Option<usize>,
    #[serde(deserialize_with = "whole_number")]
    pub(super) batch_size: Option<usize>,
    #[serde(deserialize_with = "whole_number")]
    pub(super) n_iter: Option<usize>,
    pub(super) sampler_name: Option<String>,
    pub(super) sampler_index: Option<String>,
    /// The spacing of noise levels.
    pub(super) scheduler: Option<String>,
    pub(super) eta: Option<f64>,
    pub(super) override_settings: Option<Map<String, Value>>,
    pub(super) send_images: Option<bool>,
    pub(super) alwayson_scripts: Option<Map<String, Value>>,
    /// img2img: the image to start from, in base64.
    pub(super) init_images: Option<Vec<String>>,
    /// img2img: how much may change.
    pub(super) denoising_strength: Option<f64>,
    /// img2img: where it is redrawn.
    pub(super) mask: Option<String>,
    pub(super) mask_blur: Option<f32>,
    #[serde(deserialize_with = "whole_number")]
    pub(super) inpainting_mask_invert: Option<i64>,
    /// Whether only the masked part is drawn, at full size.
    pub(super) inpaint_full_res: Option<Flag>,
    #[schema(maximum = 4096)]
    #[serde(deserialize_with = "whole_number")]
    pub(super) inpaint_full_res_padding: Option<u32>,
    /// Refused if true.
    pub(super) enable_hr: Option<bool>,
    /// Refused if true.
    pub(super) restore_faces: Option<bool>,
    /// Refused if true.
    pub(super) tiling: Option<bool>,
    /// Refused if not 0.
    pub(super) subseed_strength: Option<f64>,
    /// Refused if not empty.
    pub(super) script_name: Option<String>,
    /// Refused if not empty.
    pub(super) styles: Option<Vec<String>>,
    #[serde(flatten)]
    #[schema(ignore)]
    pub(super) others: Map<String, Value>,
}

/// A switch, which some clients send as a number.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected true, false or a number")]
pub(super) enum Flag {
    Switch(bool),
    Number(i64),
}

/// Multiples of a side that clients may send; the model draws multiples of 8.
const SIDE_MULTIPLE: usize = 8;

/// The setting that names the model.
pub(super) const CHECKPOINT: &str = "sd_model_checkpoint";
/// The setting that skips layers of the text encoder.
pub(super) const LAST_LAYERS: &str = "CLIP_stop_at_last_layers";
/// More layers than a text encoder has.
const MOST_LAYERS: f64 = 1000.0;

/// The name in a title such as `name.safetensors [hash]`.
pub(super) fn model_name(title: &str) -> &str {
    let name = title.split(" [").next().unwrap_or(title);
    [".safetensors", ".ckpt", ".gguf"]
        .into_iter()
        .find_map(|ending| name.strip_suffix(ending))
        .unwrap_or(name)
}

/// The layers that settings skip; `field` is their name in a problem. Web interfaces count the last layer as 1.
///
/// # Errors
/// If it is not a number of layers.
pub(super) fn skipped_layers(settings: &Map<String, Value>, field: &str) -> Result<Option<usize>, Problem> {
    let Some(layers) = settings.get(LAST_LAYERS).filter(|layers| !layers.is_null()) else { return Ok(None) };
    // Some clients send 2.0.
    let whole =
        layers.as_f64().filter(|layers| layers.fract() == 0.0 && (0.0..=MOST_LAYERS).contains(layers));
    match whole {
        Some(layers) => Ok(Some((layers as usize).saturating_sub(1))),
        None => {
            Err(Problem::field(field, format!("{layers}, expected a whole number from 1 to {MOST_LAYERS}")))
        }
    }
}

impl WebuiRequest {
    /// The model that the request or an earlier one chose.
    pub(super) fn model(&self, state: &Shared) -> Option<String> {
        let setting = |name: &str| self.override_settings.as_ref()?.get(name)?.as_str().map(str::to_owned);
        setting(CHECKPOINT).map(|title| model_name(&title).to_owned()).or_else(|| state.webui().model)
    }

    /// What to draw.
    ///
    /// # Errors
    /// If a value is out of range, or asks for what the server cannot do.
    pub(super) async fn drawing(&self, state: &Shared, queue: &DrawingQueue) -> Result<DrawRequest, Problem> {
        self.check_supported()?;
        let (prompt, loras) = self.prompt_and_loras(state)?;
        let images = self.batch_size.unwrap_or(1).saturating_mul(self.n_iter.unwrap_or(1));
        let most = state.options.limits.images;
        if !(1..=most).contains(&images) {
            let problem = format!("{images} images, expected 1 to {most}");
            return Err(Problem::field("batch_size × n_iter", problem));
        }
        let image = match self.init_images.as_deref() {
            None | Some([]) => None,
            Some([image]) => {
                Some(GivenImage::of_text(&state.decoding, "init_images[0]", image.clone()).await?)
            }
            Some(images) => {
                return Err(Problem::field("init_images", format!("{}, expected one", images.len())));
            }
        };
        let mask = match self.mask.as_deref().filter(|mask| !mask.is_empty()) {
            Some(mask) => Some(GivenImage::of_text(&state.decoding, "mask", mask.to_owned()).await?),
            None => None,
        };
        let size = match (self.width, self.height) {
            (None, None) => None,
            (width, height) => {
                let default = queue.status.default_size.get().copied();
                let side = |side: Option<usize>, default: Option<usize>, name: &str| {
                    let side = side.or(default);
                    side.map(|side| side / SIDE_MULTIPLE * SIDE_MULTIPLE)
                        .ok_or_else(|| Problem::field(name, "expected width and height, or neither"))
                };
                Some((
                    side(width, default.map(|size| size.0), "width")?,
                    side(height, default.map(|size| size.1), "height")?,
                ))
            }
        };
        let seed = match self.seed {
            None => random_seed(),
            Some(seed) => u64::try_from(seed).unwrap_or_else(|_| random_seed()),
        };
        let fields = DrawFields {
            prompt,
            negative_prompt: self.negative_prompt.clone(),
            n: Some(images),
            size,
            seed: Some(seed),
            steps: self.steps,
            guidance_scale: self.cfg_scale,
            clip_skip: Some(self.clip_skip(state)?),
            prompt_weights: true,
            loras,
            controls: self.controls(state).await?,
            format: Some(ImageFileFormat::Png),
            ..DrawFields::default()
        };
        let mut request = fields.request(state, queue)?;
        request.options = self.with_sampler(request.options)?;
        if request.options.scheduler == Some(SchedulerKind::Ddim) {
            request.options = request.options.eta(self.eta.unwrap_or_default());
        }
        if let Some(given) = image {
            let image = image_data::rgb(&given.image);
            request.rooms.push(given.room);
            if let Some(strength) = self.denoising_strength {
                request.options = request.options.strength(share("denoising_strength", strength)?);
            }
            match mask {
                None => request.options = request.options.image(image),
                Some(given) => {
                    let mut mask = image_data::mask(&given.image);
                    request.rooms.push(given.room);
                    if self.inpainting_mask_invert.unwrap_or(0) != 0 {
                        imageops::invert(&mut mask);
                    }
                    let blur = self.mask_blur.unwrap_or(0.0);
                    if blur > 0.0 && blur.is_finite() {
                        mask = imageops::blur(&mask, blur.min(64.0));
                    }
                    let area = self.redrawn_area(&image, &mask, size, queue);
                    match area {
                        Some(area) => request.area = Some(area),
                        None => request.options = request.options.image(image).mask(mask),
                    }
                }
            }
        } else if mask.is_some() {
            return Err(Problem::field("mask", "expected an image in init_images with it"));
        }
        request.previews = Some(0);
        request.keeps_interrupted = true;
        Ok(request)
    }

    /// The sampler by either of its names, and the spacing of noise levels.
    fn with_sampler(&self, mut options: GenerateOptions) -> Result<GenerateOptions, Problem> {
        let named = |name: &&String| !name.is_empty() && !name.eq_ignore_ascii_case("automatic");
        let name = self.sampler_name.as_ref().filter(named).or(self.sampler_index.as_ref().filter(named));
        if let Some(name) = name {
            options = with_sampler(options, "sampler_name", name)?;
        }
        if let Some(name) = self.scheduler.as_ref().filter(named) {
            let spacing: Option<SigmaSpacing> = name.to_lowercase().parse().ok();
            let Some(spacing) = spacing else {
                let known: Vec<_> = SigmaSpacing::ALL.into_iter().map(SigmaSpacing::name).collect();
                let problem = format!("{name:?}, expected Automatic or one of {}", known.join(", "));
                return Err(Problem::field("scheduler", problem));
            };
            options = options.sigma_spacing(spacing);
        }
        Ok(options)
    }

    fn redrawn_area(
        &self,
        image: &image::RgbImage,
        mask: &image::GrayImage,
        size: Option<(usize, usize)>,
        queue: &DrawingQueue,
    ) -> Option<RedrawnArea> {
        let is_asked = match self.inpaint_full_res? {
            Flag::Switch(is_on) => is_on,
            Flag::Number(number) => number != 0,
        };
        let (width, height) = size.or_else(|| queue.status.default_size.get().copied())?;
        let size = (u32::try_from(width).ok()?, u32::try_from(height).ok()?);
        let padding = self.inpaint_full_res_padding.unwrap_or(0);
        is_asked.then(|| RedrawnArea::around(image.clone(), mask, padding, size))?
    }

    /// The prompt without `<lora:name:strength>`, and those LoRAs.
    fn prompt_and_loras(&self, state: &Shared) -> Result<(String, Vec<NamedLora>), Problem> {
        let prompt = self.prompt.clone().unwrap_or_default();
        let known = state.folders.lora_names();
        let (mut rest, mut loras) = (String::with_capacity(prompt.len()), Vec::new());
        let mut text = prompt.as_str();
        while let Some(start) = text.find("<lora:") {
            let (before, tag) = text.split_at(start);
            let Some(end) = tag.find('>') else { break };
            let inside = tag.get("<lora:".len()..end).unwrap_or_default();
            let (name, strength) = inside.split_once(':').unwrap_or((inside, "1"));
            let strength = strength.split(':').next().unwrap_or_default().trim().parse().ok();
            let Some(strength) = strength else {
                return Err(Problem::field("prompt", format!("{inside:?}: expected <lora:name:strength>")));
            };
            if !known.iter().any(|known| known == name) {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(Problem::field("prompt", format!("LoRA {name:?}, expected one of: {known}")));
            }
            loras.push(NamedLora { name: name.to_owned(), strength: factor("prompt", strength)? });
            rest.push_str(before);
            text = tag.get(end + 1..).unwrap_or_default();
        }
        rest.push_str(text);
        Ok((rest.trim().to_owned(), loras))
    }

    /// Layers to skip, by the request or an earlier one.
    fn clip_skip(&self, state: &Shared) -> Result<usize, Problem> {
        let field = format!("override_settings.{LAST_LAYERS}");
        let asked = self.override_settings.as_ref().map(|settings| skipped_layers(settings, &field));
        Ok(asked.transpose()?.flatten().unwrap_or_else(|| state.webui().clip_skip))
    }

    /// The units of the ControlNet extension.
    async fn controls(&self, state: &Shared) -> Result<Vec<ControlImage>, Problem> {
        let scripts = self.alwayson_scripts.iter().flatten();
        let units = scripts.filter(|(name, _)| name.eq_ignore_ascii_case("controlnet"));
        let units: Vec<Value> = units
            .filter_map(|(_, script)| script.get("args")?.as_array().cloned())
            .flatten()
            .filter(|unit| {
                unit.get("enabled").and_then(Value::as_bool).unwrap_or(true) && unit.get("model").is_some()
            })
            .collect();
        let known = state.folders.controlnet_names();
        let mut controls = Vec::with_capacity(units.len());
        for (index, unit) in units.iter().enumerate() {
            let field = |name: &str| format!("alwayson_scripts.controlnet.args[{index}].{name}");
            let text = |name: &str| unit.get(name).and_then(Value::as_str).unwrap_or_default();
            if !matches!(text("module"), "" | "none" | "None") {
                let problem = format!("{:?}, expected none: images are followed as they are", text("module"));
                return Err(Problem::field(&field("module"), problem));
            }
            if !follows_both(unit.get("control_mode")) {
                let problem = "expected Balanced: the prompt and the image count alike here";
                return Err(Problem::field(&field("control_mode"), problem));
            }
            if let Some(name) =
                MASKS.into_iter().find(|name| unit.get(*name).is_some_and(|mask| !is_empty(mask)))
            {
                return Err(Problem::field(&field(name), "expected none: the whole image is followed"));
            }
            let nested = |name: &str| unit.get("image").and_then(|image| image.get(name));
            if let Some(mask) = nested("mask").filter(|mask| !is_empty(mask)) {
                check_is_even(state, &field("image.mask"), mask).await?;
            }
            // Names may carry a hash.
            let name = text("model").split(" [").next().unwrap_or_default();
            if !known.iter().any(|known| known == name) {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(Problem::field(&field("model"), format!("{name:?}, expected one of: {known}")));
            }
            let nested = nested("image").and_then(Value::as_str);
            let image = [text("image"), text("input_image"), nested.unwrap_or_default()];
            let image = image.into_iter().find(|image| !image.is_empty()).unwrap_or_default().to_owned();
            let given = GivenImage::of_text(&state.decoding, &field("image"), image).await?;
            let number = |name: &str, default: f64| unit.get(name).and_then(Value::as_f64).unwrap_or(default);
            controls.push(ControlImage {
                model: name.to_owned(),
                image: image_data::rgb(&given.image),
                room: given.room,
                scale: factor(&field("weight"), number("weight", 1.0))?,
                start: share(&field("guidance_start"), number("guidance_start", 0.0))?,
                end: share(&field("guidance_end"), number("guidance_end", 1.0))?,
            });
        }
        Ok(controls)
    }
}

/// How far from black or white the extension takes a mask for empty.
const EVEN: u8 = 5;
/// Fields of a unit that limit it to a part of the image.
const MASKS: [&str; 3] = ["mask", "mask_image", "effective_region_mask"];

/// Checks that a mask beside a unit's image is black or white all over, as canvases send it where nothing was drawn. The
/// extension follows any other mask in place of the image.
async fn check_is_even(state: &Shared, field: &str, mask: &Value) -> Result<(), Problem> {
    let text = mask.as_str().ok_or_else(|| Problem::field(field, "expected an image in base64"))?;
    let given = GivenImage::of_text(&state.decoding, field, text.to_owned()).await?;
    let mask = image_data::rgb(&given.image);
    let is_all = |values: RangeInclusive<u8>| mask.pixels().all(|pixel| values.contains(&pixel.0[0]));
    if is_all(0..=EVEN) || is_all(u8::MAX - EVEN..=u8::MAX) {
        return Ok(());
    }
    let problem = "expected none, or one that is all black or all white: the whole image is followed";
    Err(Problem::field(field, problem))
}

/// Whether a unit's `control_mode` lets the prompt and the image count alike, which is the first of the modes.
fn follows_both(mode: Option<&Value>) -> bool {
    match mode {
        None | Some(Value::Null) => true,
        Some(Value::String(name)) => name == "Balanced",
        Some(number) => number.as_f64() == Some(0.0),
    }
}
