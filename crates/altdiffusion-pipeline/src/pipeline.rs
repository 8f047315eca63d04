//! The whole way from a text to pictures.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use altclip_encoder::checkpoint::Checkpoint;
use altclip_encoder::config::parse_json;
use altclip_encoder::source::ModelSource;
use altclip_encoder::text_encoder::TextEncoder;
use altclip_encoder::tokenizer::Tokenizer;
use candle_core::{DType, Device, Tensor};
use image::RgbImage;

use crate::denoise::{Denoised, Step, denoise};
use crate::given_picture;
use crate::latent_preview::LatentPreview;
use crate::latents::all_finite;
use crate::model_parts::ModelParts;
use crate::options::GenerateOptions;
use crate::picture::to_pictures;
use crate::prompt::{Prompt, PromptReading, TextStates, prompt_tokens};
use crate::random::Noise;
use crate::schedulers::{Scheduler, SchedulerConfig};
use crate::start::{Inpainting, Rest, Start, first_index};
use crate::unet::UNet2DConditionModel;
use crate::vae::{AutoencoderKl, Tiling};
use crate::{Error, PerBlock, Result};

/// Sizes of pictures are multiples of this, as in diffusers, also where the VAE would take others.
const SIZE_MULTIPLE: usize = 8;

/// The largest side of a picture, in pixels. Beyond it the work would not end in a lifetime.
const LARGEST_SIDE: usize = 1 << 16;

/// The largest number of pictures in one batch.
const MOST_PICTURES: usize = 1 << 10;

/// A loaded AltDiffusion model. It does not change while it generates, so that threads can share it.
#[derive(Debug)]
pub struct AltDiffusion {
    tokenizer: Tokenizer,
    prompt_tokens: usize,
    text_encoder: TextEncoder,
    unet: UNet2DConditionModel,
    vae: AutoencoderKl,
    scheduler: SchedulerConfig,
    device: Device,
    load_time: Duration,
}

/// Pictures, with what led to them.
#[derive(Debug, Clone)]
pub struct Generated {
    /// The pictures.
    pub images: Vec<RgbImage>,
    /// Their latents before decoding, (pictures, channels, height, width), f32.
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
    /// Loads a model from its folders, as [`ModelParts::in_folders`] finds its parts.
    ///
    /// # Errors
    /// When a part is missing, damaged, not supported, or does not fit the others.
    pub fn from_source(source: &ModelSource, dtype: DType, device: &Device) -> Result<Self> {
        let start = Instant::now();
        let pipeline = Self::from_parts(&ModelParts::in_folders(source)?, dtype, device)?;
        Ok(Self { load_time: start.elapsed(), ..pipeline })
    }

    /// Loads a model from its parts.
    ///
    /// # Errors
    /// When there is no tokenizer, or a part is damaged, not supported, or does not fit the others.
    pub fn from_parts(parts: &ModelParts, dtype: DType, device: &Device) -> Result<Self> {
        let start = Instant::now();
        let weights = |checkpoint: &Checkpoint| checkpoint.var_builder(dtype, device);

        let tokenizer = Tokenizer::from_source(parts.tokenizer()?, "tokenizer")?;
        let scheduler = SchedulerConfig::from_json(&*parts.scheduler, parts.scheduler.name())?.for_latents();

        let ModelParts { text_encoder, unet, vae, .. } = parts;
        let text_encoder =
            TextEncoder::new(&parse_json(&text_encoder.config)?, weights(&text_encoder.weights)?)?;
        let unet = UNet2DConditionModel::new(&parse_json(&unet.config)?, weights(&unet.weights)?)?;
        let vae = AutoencoderKl::new(&parse_json(&vae.config)?, weights(&vae.weights)?)?;

        let pipeline = Self {
            prompt_tokens: prompt_tokens(parts.tokenizer()?, text_encoder.config())?,
            tokenizer,
            text_encoder,
            unet,
            vae,
            scheduler,
            device: device.clone(),
            load_time: start.elapsed(),
        };
        pipeline.check_fit(&parts.name)?;
        Ok(pipeline)
    }

    /// The parts can belong to one model.
    fn check_fit(&self, model: &str) -> Result<()> {
        let unet = self.unet.config();
        let latents = self.vae.config().latent_channels;
        let contradiction =
            |field, problem| Error::Field { file: format!("{model}: unet/config.json"), field, problem };
        let of_vae = format!("but `latent_channels` of vae/config.json is {latents}");
        // A UNet that was trained to inpaint also sees a mask and the latents of what stays.
        if ![latents, 2 * latents + 1].contains(&unet.in_channels) {
            return Err(contradiction("in_channels", format!("is {}, {of_vae}", unet.in_channels)));
        }
        if unet.out_channels != latents {
            return Err(contradiction("out_channels", format!("is {}, {of_vae}", unet.out_channels)));
        }
        let width = self.text_encoder.config().project_dim;
        let widths = match &unet.cross_attention_dim {
            PerBlock::Same(width) => std::slice::from_ref(width),
            PerBlock::Each(widths) => widths,
        };
        if widths.iter().any(|&expected| expected != width) {
            let problem = format!("is {widths:?}, but `project_dim` of text_encoder/config.json is {width}");
            return Err(contradiction("cross_attention_dim", problem));
        }
        Ok(())
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The tokens that prompts are padded and cut to.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// The text encoder.
    pub fn text_encoder(&self) -> &TextEncoder {
        &self.text_encoder
    }

    /// The denoising model.
    pub fn unet(&self) -> &UNet2DConditionModel {
        &self.unet
    }

    /// The autoencoder.
    pub fn vae(&self) -> &AutoencoderKl {
        &self.vae
    }

    /// The noise levels, as [`SchedulerConfig::for_latents`] corrects them.
    pub fn scheduler(&self) -> &SchedulerConfig {
        &self.scheduler
    }

    /// What turns latents into small pictures without the decoder.
    ///
    /// # Errors
    /// When decoding fails.
    pub fn latent_preview(&self) -> Result<LatentPreview> {
        LatentPreview::new(&self.vae, &self.device)
    }

    /// How long loading took.
    pub fn load_time(&self) -> Duration {
        self.load_time
    }

    /// Pictures of a text.
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
        on_step: impl FnMut(Step<'_>) -> ControlFlow<()>,
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
        let mut noise = options.rng.with_seed(options.seed);
        let run_start = self.start(options, scheduler.as_ref(), noise.as_mut())?;
        let prompt = self.read_prompt(options, run_start.latents.dim(0)? / options.prompt_count())?;
        self.device.synchronize()?;
        let text = start.elapsed();

        let Denoised { latents, steps } =
            denoise(&self.unet, scheduler.as_mut(), &prompt, guidance, run_start, noise.as_mut(), on_step)?;

        let decoding = Instant::now();
        let images = self.decode_with(&latents, options.tiling)?;
        let timings = Timings { text, steps, decode: decoding.elapsed(), total: start.elapsed() };
        Ok(Generated { images, latents, timings })
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

    /// The prompts of the options and, with guidance, what they keep away from, for `pictures` pictures each.
    fn read_prompt(&self, options: &GenerateOptions, pictures: usize) -> Result<Prompt> {
        let texts: Vec<&str> = options.prompts.iter().map(String::as_str).collect();
        let guided = options.guidance.scale > 1.0;
        let negative = options.negative_prompt.as_str();
        let reading = options.prompt_reading;
        let count = options.prompt_count();
        let states = match (&options.prompt_states, &options.negative_states) {
            (Some(states), _) if !guided => states.clone(),
            (None, _) if !guided => self.encode_texts(reading, &texts)?,
            // All at a time: the empty text costs hardly anything beside the others.
            (None, None) => self.encode_texts(reading, &[&vec![negative; count], &texts[..]].concat())?,
            (states, without) => {
                let without = match without {
                    Some(without) => without.clone(),
                    None => self.encode_texts(reading, &[negative])?,
                };
                if ![1, count].contains(&without.texts()) {
                    return Err(Error::Shape {
                        tensor: "negative states",
                        expected: format!("(1 or {count}, tokens, width)"),
                        found: format!("{:?}", without.hidden_states().dims()),
                    });
                }
                let states = match states {
                    Some(states) => states.clone(),
                    None => self.encode_texts(reading, &texts)?,
                };
                without.for_each_of(count)?.and(&states)?
            }
        };
        match guided {
            true => Prompt::guided(&self.unet, &states, pictures),
            false => Prompt::conditioned(&self.unet, &states, pictures),
        }
    }

    /// The hidden states of texts, as [`GenerateOptions::prompt_states`] takes them.
    ///
    /// # Errors
    /// When a text cannot be read or encoded.
    pub fn encode_texts(&self, reading: PromptReading, texts: &[&str]) -> Result<TextStates> {
        let (tokenizer, encoder, tokens) = (&self.tokenizer, &self.text_encoder, self.prompt_tokens);
        match reading {
            PromptReading::Plain => TextStates::encode(tokenizer, encoder, texts, tokens, &self.device),
            PromptReading::Weighted => {
                TextStates::encode_weighted(tokenizer, encoder, texts, tokens, &self.device)
            }
        }
    }

    /// Decodes latents (pictures, channels, height, width) as the UNet knows them, one picture after the other, which
    /// bounds the memory that the decoder needs.
    ///
    /// # Errors
    /// When they have another shape, or decode to NaN or infinity.
    pub fn decode(&self, latents: &Tensor) -> Result<Vec<RgbImage>> {
        self.decode_with(latents, None)
    }

    fn decode_with(&self, latents: &Tensor, tiling: Option<Tiling>) -> Result<Vec<RgbImage>> {
        let latents = (latents / self.vae.scaling_factor())?;
        let mut images = Vec::with_capacity(latents.dim(0)?);
        for picture in 0..latents.dim(0)? {
            let latents = latents.narrow(0, picture, 1)?;
            let pixels = match tiling {
                Some(tiling) => self.vae.decode_tiled(&latents, tiling)?,
                None => self.vae.decode(&latents)?,
            };
            images.extend(to_pictures(&pixels)?);
        }
        Ok(images)
    }

    /// Width and height of a picture, in pixels, if nobody asks for others: what the model was trained on.
    ///
    /// # Errors
    /// When the model does not say.
    pub fn default_size(&self) -> Result<(usize, usize)> {
        let config = self.unet.config();
        let factor = self.vae.downscale();
        let (height, width) = match &config.sample_size {
            Some(PerBlock::Same(size)) => (*size, *size),
            Some(PerBlock::Each(sizes)) if sizes.len() == 2 => (sizes[0], sizes[1]),
            _ => {
                let problem = "not given, and the model has no `sample_size`: expected width and height";
                return Err(Error::option("size", problem));
            }
        };
        // The first published Stable Diffusion configurations say 32 where 64 is meant.
        let (height, width) =
            match config.other.get("_diffusers_version").and_then(|version| version.as_str()) {
                Some(version) if is_before_0_9(version) => (height.max(64), width.max(64)),
                _ => (height, width),
            };
        Ok((width.saturating_mul(factor), height.saturating_mul(factor)))
    }

    /// The size of a picture that is drawn from another: that of it, reduced to the number of pixels that the model was
    /// trained on if it has more.
    fn size_from(&self, image: &RgbImage) -> Result<(usize, usize)> {
        let (most_wide, most_high) = self.default_size()?;
        let (width, height) = image.dimensions();
        let pixels = f64::from(width) * f64::from(height);
        let scale = (most_wide as f64 * most_high as f64 / pixels).sqrt().min(1.0);
        let multiple = self.size_multiple();
        let side = |side: u32| ((f64::from(side) * scale) as usize / multiple * multiple).max(multiple);
        Ok((side(width), side(height)))
    }

    /// What sides of pictures are multiples of.
    fn size_multiple(&self) -> usize {
        self.vae.downscale().max(SIZE_MULTIPLE)
    }

    /// The checked shape of the latents: (pictures, channels, height, width).
    fn latent_shape(&self, options: &GenerateOptions) -> Result<[usize; 4]> {
        let channels = self.vae.config().latent_channels;
        let factor = self.vae.downscale();
        let given = match &options.initial_latents {
            Some(latents) => Some(latents.dims4().map_err(|_| Error::Shape {
                tensor: "initial latents",
                expected: format!("(pictures, {channels}, height / {factor}, width / {factor})"),
                found: format!("{:?}", latents.dims()),
            })?),
            None => None,
        };
        let (default_width, default_height) = match (options.width, options.height, given, &options.image) {
            (_, _, Some((_, _, height, width)), _) => (width * factor, height * factor),
            (Some(width), Some(height), ..) => (width, height),
            (.., Some(image)) => self.size_from(image)?,
            _ => self.default_size()?,
        };
        let width = check_side("width", options.width.unwrap_or(default_width), self.size_multiple())?;
        let height = check_side("height", options.height.unwrap_or(default_height), self.size_multiple())?;
        let prompts = options.prompt_count();
        if prompts == 0 {
            return Err(Error::option("prompts", "none given, expected at least one"));
        }
        let each = options.pictures.unwrap_or(given.map_or(1, |(pictures, ..)| (pictures / prompts).max(1)));
        let pictures = each.saturating_mul(prompts);
        if pictures == 0 || pictures > MOST_PICTURES {
            let problem = format!("{pictures} pictures, expected 1 to {MOST_PICTURES}");
            return Err(Error::option("number of pictures", problem));
        }
        let expected = [pictures, channels, height / factor, width / factor];
        if let Some(latents) = &options.initial_latents {
            if latents.dims() != expected {
                return Err(Error::Shape {
                    tensor: "initial latents",
                    expected: format!("{expected:?} for {pictures} pictures of {width} × {height} pixels"),
                    found: format!("{:?}", latents.dims()),
                });
            }
            if !all_finite(latents)? {
                return Err(Error::NotFinite {
                    place: "the initial latents are".to_owned(),
                    remedy: "expected standard normal values",
                });
            }
        }
        Ok(expected)
    }

    /// What the run begins with, on the device. The noise is drawn in the order in which diffusers draws it.
    fn start(
        &self,
        options: &GenerateOptions,
        scheduler: &dyn Scheduler,
        noise: &mut dyn Noise,
    ) -> Result<Start> {
        let shape @ [_, channels, height, width] = self.latent_shape(options)?;
        let inpaints = self.unet.config().in_channels != channels;
        let (image, strength) = match (&options.image, &options.mask) {
            (None, Some(_)) => return Err(Error::option("mask", "expected an image that it belongs to")),
            (None, None) | (Some(_), None) if inpaints => {
                let problem =
                    "not given, but this model draws parts of pictures: expected an image and a mask";
                return Err(Error::option("mask", problem));
            }
            (None, None) if options.strength.is_some() => {
                return Err(Error::option("strength", "expected an image to begin with"));
            }
            (None, None) => {
                let noise = self.initial_noise(options, &shape, noise)?;
                return Start::in_noise(scheduler, &noise);
            }
            (Some(image), mask) => {
                (image, options.strength.unwrap_or(GenerateOptions::default_strength(mask.is_some())))
            }
        };
        let steps = options.steps.count();
        first_index(scheduler, strength, steps)?;

        let factor = self.vae.downscale();
        let pixels =
            given_picture::pixels(image, width * factor, height * factor)?.to_device(&self.device)?;
        let anew = options.mask.is_some() && strength == 1.0;
        let original = if anew && inpaints { None } else { Some(self.encode_pixels(&pixels, noise)?) };
        let initial_noise = self.initial_noise(options, &shape, noise)?;
        let mut start = match &original {
            Some(original) if !anew => {
                let original = original.broadcast_as(&shape)?.contiguous()?;
                Start::in_picture(scheduler, &original, &initial_noise, strength, steps)?
            }
            _ => Start::in_noise(scheduler, &initial_noise)?,
        };
        if let Some(mask) = &options.mask {
            let mask = given_picture::mask(mask, width * factor, height * factor)?.to_device(&self.device)?;
            let masked = pixels.broadcast_mul(&mask.affine(-1.0, 1.0)?)?;
            // Encoded also where it is not needed, since that draws noise.
            let masked = self.encode_pixels(&masked, noise)?;
            let rest = match original {
                Some(original) if !inpaints => Rest::Blended { original, noise: initial_noise },
                _ => Rest::Channels { masked },
            };
            start.inpainting =
                Some(Inpainting { mask: given_picture::mask_of_latents(&mask, factor)?, rest });
        }
        Ok(start)
    }

    /// The noise to begin with, as given or drawn.
    fn initial_noise(
        &self,
        options: &GenerateOptions,
        shape: &[usize],
        noise: &mut dyn Noise,
    ) -> Result<Tensor> {
        let latents = match &options.initial_latents {
            Some(latents) => latents.to_dtype(DType::F32)?,
            None => noise.normal(shape)?,
        };
        Ok(latents.to_device(&self.device)?)
    }

    /// Pixels (pictures, 3, height, width), −1 to 1, to scaled latents, drawn from the autoencoder's distribution.
    fn encode_pixels(&self, pixels: &Tensor, noise: &mut dyn Noise) -> Result<Tensor> {
        let moments = self.vae.encode(pixels)?;
        let noise = noise.normal(moments.mean.dims())?.to_device(&self.device)?;
        Ok((moments.sample(&noise)? * self.vae.scaling_factor())?)
    }
}

/// A side of a picture, if the model can draw it.
fn check_side(option: &'static str, side: usize, multiple: usize) -> Result<usize> {
    if side == 0 || side > LARGEST_SIDE || !side.is_multiple_of(multiple) {
        let problem = format!("{side} pixels, expected a multiple of {multiple} up to {LARGEST_SIDE}");
        return Err(Error::option(option, problem));
    }
    Ok(side)
}

/// Whether a version of diffusers is older than 0.9.
fn is_before_0_9(version: &str) -> bool {
    let mut numbers = version.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < (0, 9),
        _ => false,
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

    #[test]
    fn sides_are_multiples() {
        assert!(check_side("width", 64, 8).is_ok());
        for (side, multiple) in [(0, 8), (60, 8), (100, 8), (72, 16), (1 << 40, 8)] {
            let error = check_side("width", side, multiple).err().map(|error| error.to_string());
            assert!(error.is_some_and(|error| error.starts_with("width: ") && error.contains("multiple of")));
        }
    }

    #[test]
    fn versions_are_compared_by_number() {
        assert!(is_before_0_9("0.7.0.dev0") && is_before_0_9("0.8.1"));
        assert!(!is_before_0_9("0.9.0") && !is_before_0_9("0.31.0") && !is_before_0_9("unknown"));
    }
}
