//! The whole way from a text to pictures.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use altclip_encoder::checkpoint::Checkpoint;
use altclip_encoder::source::ModelSource;
use altclip_encoder::text_encoder::TextEncoder;
use altclip_encoder::tokenizer::Tokenizer;
use candle_core::{DType, Device, Tensor};
use image::RgbImage;

use crate::denoise::{Denoised, Step, denoise};
use crate::latents::all_finite;
use crate::options::GenerateOptions;
use crate::picture::to_pictures;
use crate::prompt::{Prompt, TextStates, prompt_tokens};
use crate::random::Noise;
use crate::schedulers::{Scheduler, SchedulerConfig};
use crate::unet::UNet2DConditionModel;
use crate::vae::AutoencoderKl;
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
    /// Loads the parts of a model from their folders: `tokenizer`, `text_encoder`, `unet`, `vae` and `scheduler`. What
    /// `model_index.json` says does not matter, since published ones name code that is no more.
    ///
    /// # Errors
    /// When a part is missing, damaged, not supported, or does not fit the others.
    pub fn from_source(source: &ModelSource, dtype: DType, device: &Device) -> Result<Self> {
        let start = Instant::now();
        let weights = |folder| Checkpoint::open(source, folder)?.var_builder(dtype, device);

        let tokenizer = Tokenizer::from_source(source, "tokenizer")?;
        let scheduler = source.read("scheduler/scheduler_config.json")?;
        let scheduler = SchedulerConfig::from_json(&*scheduler, scheduler.name())?.for_latents();

        let text_encoder =
            TextEncoder::new(&source.read_json("text_encoder/config.json")?, weights("text_encoder")?)?;
        let unet = UNet2DConditionModel::new(&source.read_json("unet/config.json")?, weights("unet")?)?;
        let vae = AutoencoderKl::new(&source.read_json("vae/config.json")?, weights("vae")?)?;

        let pipeline = Self {
            prompt_tokens: prompt_tokens(source, text_encoder.config())?,
            tokenizer,
            text_encoder,
            unet,
            vae,
            scheduler,
            device: device.clone(),
            load_time: start.elapsed(),
        };
        pipeline.check_fit(source)?;
        Ok(pipeline)
    }

    /// The parts can belong to one model.
    fn check_fit(&self, source: &ModelSource) -> Result<()> {
        let unet = self.unet.config();
        let latents = self.vae.config().latent_channels;
        let contradiction =
            |field, problem| Error::Field { file: format!("{source}: unet/config.json"), field, problem };
        for (field, channels) in [("in_channels", unet.in_channels), ("out_channels", unet.out_channels)] {
            if channels != latents {
                let problem = format!("is {channels}, but `latent_channels` of vae/config.json is {latents}");
                return Err(contradiction(field, problem));
            }
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
        if !options.guidance_scale.is_finite() {
            let problem = format!("{}, expected a number", options.guidance_scale);
            return Err(Error::option("guidance scale", problem));
        }
        let mut noise = options.rng.with_seed(options.seed);
        let initial_latents = self.start(options, noise.as_mut())?;
        let pictures = initial_latents.dim(0)?;

        let guided = options.guidance_scale > 1.0;
        let negative_prompt = guided.then_some(options.negative_prompt.as_str());
        let prompt = self.encode_prompt(&options.prompt, negative_prompt, pictures)?;
        self.device.synchronize()?;
        let text = start.elapsed();

        let Denoised { latents, steps } = denoise(
            &self.unet,
            scheduler.as_mut(),
            &prompt,
            options.guidance_scale,
            &initial_latents,
            noise.as_mut(),
            on_step,
        )?;

        let decoding = Instant::now();
        let images = self.decode(&latents)?;
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

    /// Encodes a text, and with guidance what to keep away from (the empty text, if nothing), for `pictures` pictures.
    ///
    /// # Errors
    /// When a text cannot be encoded.
    pub fn encode_prompt(
        &self,
        prompt: &str,
        negative_prompt: Option<&str>,
        pictures: usize,
    ) -> Result<Prompt> {
        let encode = |texts: &[&str]| {
            TextStates::encode(&self.tokenizer, &self.text_encoder, texts, self.prompt_tokens, &self.device)
        };
        match negative_prompt {
            Some(negative) => Prompt::guided(&self.unet, &encode(&[negative, prompt])?, pictures),
            None => Prompt::conditioned(&self.unet, &encode(&[prompt])?, pictures),
        }
    }

    /// Decodes latents (pictures, channels, height, width) as the UNet knows them, one picture after the other, which
    /// bounds the memory that the decoder needs.
    ///
    /// # Errors
    /// When they have another shape, or decode to NaN or infinity.
    pub fn decode(&self, latents: &Tensor) -> Result<Vec<RgbImage>> {
        let latents = (latents / self.vae.scaling_factor())?;
        let mut images = Vec::with_capacity(latents.dim(0)?);
        for picture in 0..latents.dim(0)? {
            images.extend(to_pictures(&self.vae.decode(&latents.narrow(0, picture, 1)?)?)?);
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

    /// The checked latents to start from, on the device: the first of the noise, if no others are given.
    fn start(&self, options: &GenerateOptions, noise: &mut dyn Noise) -> Result<Tensor> {
        let channels = self.unet.config().in_channels;
        let factor = self.vae.downscale();
        let given = match &options.initial_latents {
            Some(latents) => Some((
                latents,
                latents.dims4().map_err(|_| Error::Shape {
                    tensor: "initial latents",
                    expected: format!("(pictures, {channels}, height / {factor}, width / {factor})"),
                    found: format!("{:?}", latents.dims()),
                })?,
            )),
            None => None,
        };
        let (default_width, default_height) = match (options.width, options.height, given) {
            (_, _, Some((_, (_, _, height, width)))) => (width * factor, height * factor),
            (Some(width), Some(height), None) => (width, height),
            _ => self.default_size()?,
        };
        let width = check_side("width", options.width.unwrap_or(default_width), factor)?;
        let height = check_side("height", options.height.unwrap_or(default_height), factor)?;
        let pictures = options.pictures.unwrap_or(given.map_or(1, |(_, (pictures, ..))| pictures));
        if pictures == 0 || pictures > MOST_PICTURES {
            let problem = format!("{pictures} pictures, expected 1 to {MOST_PICTURES}");
            return Err(Error::option("number of pictures", problem));
        }
        let (height, width) = (height / factor, width / factor);
        let latents = match given {
            Some((latents, _)) => {
                let expected = [pictures, channels, height, width];
                if latents.dims() != expected {
                    return Err(Error::Shape {
                        tensor: "initial latents",
                        expected: format!(
                            "{expected:?} for {pictures} pictures of {} × {} pixels",
                            width * factor,
                            height * factor
                        ),
                        found: format!("{:?}", latents.dims()),
                    });
                }
                if !all_finite(latents)? {
                    return Err(Error::NotFinite {
                        place: "the initial latents are".to_owned(),
                        remedy: "expected standard normal values",
                    });
                }
                latents.clone()
            }
            None => noise.normal(&[pictures, channels, height, width])?,
        };
        Ok(latents.to_device(&self.device)?)
    }
}

/// A side of a picture, if the model can draw it.
fn check_side(option: &'static str, side: usize, factor: usize) -> Result<usize> {
    let multiple = factor.max(SIZE_MULTIPLE);
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
    fn sides_are_multiples_of_8_and_of_the_vae() {
        assert!(check_side("width", 64, 4).is_ok());
        for (side, factor) in [(0, 8), (60, 4), (100, 8), (72, 16), (1 << 40, 8)] {
            let error = check_side("width", side, factor).err().map(|error| error.to_string());
            assert!(error.is_some_and(|error| error.starts_with("width: ") && error.contains("multiple of")));
        }
    }

    #[test]
    fn versions_are_compared_by_number() {
        assert!(is_before_0_9("0.7.0.dev0") && is_before_0_9("0.8.1"));
        assert!(!is_before_0_9("0.9.0") && !is_before_0_9("0.31.0") && !is_before_0_9("unknown"));
    }
}
