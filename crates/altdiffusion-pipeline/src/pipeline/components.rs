//! Builds a pipeline from a denoiser, an autoencoder and a scheduler of your own.

use std::sync::Arc;

use altclip_encoder::PROMPT_TOKENS;
use altclip_encoder::conditioner::Conditioner;
use altclip_encoder::tokenizer::Tokenizer;
use candle_core::Device;
use web_time::Instant;

use super::component::Component;
use super::model::{AltDiffusion, DenoiserComponent, TextComponents};
use crate::denoiser::Denoiser;
use crate::safety_checker::SafetyChecker;
use crate::schedulers::{SchedulerConfig, SchedulerFactory};
use crate::upscaler::PixelShuffleUpscaler;
use crate::vae::AutoencoderKl;
use crate::{Error, Result};

/// The components that [`AltDiffusion::from_parts`] joins, loaded or made by the caller.
///
/// ```no_run
/// use altdiffusion_pipeline::{AltDiffusion, Components, DType, Device, ModelParts};
/// # use altdiffusion_pipeline::ModelSource;
///
/// # fn main() -> altdiffusion_pipeline::Result<()> {
/// let (dtype, device) = (DType::F32, Device::Cpu);
/// let parts = ModelParts::in_folders(&ModelSource::open("BAAI/AltDiffusion-m9")?)?;
/// let unet = parts.load_unet(dtype, &device)?; // or any other Denoiser
/// let pipeline = AltDiffusion::from_parts(Components::new(unet, parts.load_vae(dtype, &device)?, &device))?;
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct Components {
    denoiser: Arc<dyn Denoiser>,
    vae: AutoencoderKl,
    device: Device,
    text_encoder: Option<(Tokenizer, Arc<dyn Conditioner>)>,
    prompt_tokens: usize,
    scheduler: SchedulerConfig,
    scheduler_factory: Option<SchedulerFactory>,
    upscaler: Option<PixelShuffleUpscaler>,
    safety_checker: Option<SafetyChecker>,
}

impl Components {
    /// A denoiser and an autoencoder on `device`, with Stable Diffusion's noise levels and no text encoder: prompts
    /// are hidden states, [`GenerateOptions::prompt_states`](crate::GenerateOptions::prompt_states).
    pub fn new(denoiser: impl Denoiser + 'static, vae: AutoencoderKl, device: &Device) -> Self {
        Self {
            denoiser: Arc::new(denoiser),
            vae,
            device: device.clone(),
            text_encoder: None,
            prompt_tokens: PROMPT_TOKENS,
            scheduler: SchedulerConfig::default(),
            scheduler_factory: None,
            upscaler: None,
            safety_checker: None,
        }
    }

    /// Sets the tokenizer and the text encoder.
    pub fn text_encoder(mut self, tokenizer: Tokenizer, encoder: Arc<dyn Conditioner>) -> Self {
        self.text_encoder = Some((tokenizer, encoder));
        self
    }

    /// Sets the number of tokens that prompts are padded and cut to; [`PROMPT_TOKENS`] by default.
    pub fn prompt_tokens(mut self, tokens: usize) -> Self {
        self.prompt_tokens = tokens;
        self
    }

    /// Sets the noise levels and the default scheduler. They are used as they are; apply
    /// [`SchedulerConfig::for_latents`] to correct what older files say about latents.
    pub fn scheduler(mut self, scheduler: SchedulerConfig) -> Self {
        self.scheduler = scheduler;
        self
    }

    /// Sets a default scheduler of your own.
    pub fn scheduler_factory(mut self, factory: SchedulerFactory) -> Self {
        self.scheduler_factory = Some(factory);
        self
    }

    /// Sets the network that enlarges images, see [`GenerateOptions::scale`](crate::GenerateOptions::scale).
    pub fn upscaler(mut self, upscaler: PixelShuffleUpscaler) -> Self {
        self.upscaler = Some(upscaler);
        self
    }

    /// Sets the checker that images must pass.
    pub fn safety_checker(mut self, checker: SafetyChecker) -> Self {
        self.safety_checker = Some(checker);
        self
    }
}

impl AltDiffusion {
    /// Builds a pipeline from components.
    ///
    /// # Errors
    /// If they do not fit together, in the channels of the latents or the width of the hidden states.
    pub fn from_parts(components: Components) -> Result<Self> {
        let start = Instant::now();
        let Components {
            denoiser,
            vae,
            device,
            text_encoder,
            prompt_tokens,
            scheduler,
            scheduler_factory,
            upscaler,
            safety_checker,
        } = components;
        let spec = denoiser.spec();
        let expected = vae.config().latent_channels;
        let problem = |found| format!("{found}, but the autoencoder's latents have {expected}");
        if spec.latent_channels != expected {
            return Err(Error::option("latent channels of the denoiser", problem(spec.latent_channels)));
        }
        if ![expected, expected.saturating_mul(2).saturating_add(1)].contains(&spec.in_channels) {
            return Err(Error::option("input channels of the denoiser", problem(spec.in_channels)));
        }
        let texts = match text_encoder {
            Some((tokenizer, encoder)) => {
                let texts = encoder.spec();
                if let Some(width) = spec.context_width.filter(|width| *width != texts.width) {
                    let problem = format!("{}, but the denoiser takes {width}", texts.width);
                    return Err(Error::option("width of the text encoder", problem));
                }
                Some(TextComponents {
                    tokenizer: tokenizer.with_embedding_rows(texts.vocab_size),
                    prompt_tokens,
                    spec: texts,
                    encoder: Component::Resident(encoder),
                })
            }
            None => None,
        };
        Ok(Self {
            texts,
            denoiser: DenoiserComponent { spec, model: Component::Resident(denoiser), weights: None },
            vae_config: vae.config().clone(),
            vae: Component::Resident(vae),
            upscaler: upscaler.map(Component::Resident),
            safety_checker: safety_checker.map(Component::Resident),
            scheduler,
            scheduler_factory,
            device,
            load_time: start.elapsed(),
        })
    }
}
