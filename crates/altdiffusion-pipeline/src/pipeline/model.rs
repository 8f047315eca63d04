//! Defines the loaded model, which threads can share.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use altclip_encoder::conditioner::{Conditioner, ConditionerSpec};
use altclip_encoder::tokenizer::Tokenizer;
use candle_core::Device;
use model_files::checkpoint::Checkpoint;

use super::component::Component;
use crate::denoiser::{Denoiser, DenoiserSpec};
use crate::latent_preview::LatentPreview;
use crate::safety_checker::SafetyChecker;
use crate::schedulers::{SchedulerConfig, SchedulerFactory};
use crate::unet::{UNet2DConditionConfig, UNet2DConditionModel};
use crate::upscaler::PixelShuffleUpscaler;
use crate::vae::{AutoencoderKl, AutoencoderKlConfig};
use crate::{Error, Result};

/// A model that draws: a text encoder, a denoiser, an autoencoder and a scheduler. Generating does not change it, so
/// threads can share it, for example in an [`Arc`].
///
/// ```
/// use altdiffusion_pipeline::{AltDiffusion, DType, Device, GenerateOptions};
///
/// # fn main() -> altdiffusion_pipeline::Result<()> {
/// # let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/emoji");
/// # #[cfg(any())]
/// let model = "models/emoji"; // or "BAAI/AltDiffusion-m9"
/// let pipeline = AltDiffusion::from_pretrained(model, DType::F32, &Device::Cpu)?;
/// let generated = pipeline.generate(&GenerateOptions::new("一只猫").steps(2).guidance_scale(2.25))?;
/// assert_eq!(generated.images[0].dimensions(), (64, 64));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct AltDiffusion {
    pub(super) texts: Option<TextComponents>,
    pub(super) denoiser: DenoiserComponent,
    pub(super) vae: Component<AutoencoderKl>,
    pub(super) vae_config: AutoencoderKlConfig,
    pub(super) upscaler: Option<Component<PixelShuffleUpscaler>>,
    pub(super) safety_checker: Option<Component<SafetyChecker>>,
    pub(super) scheduler: SchedulerConfig,
    pub(super) scheduler_factory: Option<SchedulerFactory>,
    pub(super) device: Device,
    pub(super) load_time: Duration,
}

/// The tokenizer and the text encoder.
#[derive(Debug)]
pub(super) struct TextComponents {
    pub tokenizer: Tokenizer,
    pub prompt_tokens: usize,
    pub spec: ConditionerSpec,
    pub encoder: Component<Arc<dyn Conditioner>>,
}

/// The denoiser, and what is known about it before it is loaded.
pub(super) struct DenoiserComponent {
    pub spec: DenoiserSpec,
    pub model: Component<Arc<dyn Denoiser>>,
    /// The UNet's weights without LoRAs, for ControlNets stored as differences from them.
    pub weights: Option<Checkpoint>,
}

impl fmt::Debug for DenoiserComponent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("DenoiserComponent").field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl AltDiffusion {
    pub(super) fn texts(&self) -> Result<&TextComponents> {
        self.texts.as_ref().ok_or_else(|| {
            Error::option("prompt", "this model has no text encoder, expected hidden states (prompt_states)")
        })
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// If the model was made without a text encoder.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        Ok(&self.texts()?.tokenizer)
    }

    /// The number of tokens that prompts are padded and cut to.
    ///
    /// # Errors
    /// If the model was made without a text encoder.
    pub fn prompt_tokens(&self) -> Result<usize> {
        Ok(self.texts()?.prompt_tokens)
    }

    /// The text encoder. Clones share their weights.
    ///
    /// # Errors
    /// If the model was made without one, or it has to be loaded, as with
    /// [`LoadOptions::low_memory`](super::LoadOptions::low_memory), and that fails.
    pub fn text_encoder(&self) -> Result<Arc<dyn Conditioner>> {
        Ok(self.texts()?.encoder.get()?.into_owned())
    }

    /// The denoiser.
    ///
    /// # Errors
    /// If it has to be loaded, as with [`LoadOptions::low_memory`](super::LoadOptions::low_memory), and that fails.
    pub fn denoiser(&self) -> Result<Arc<dyn Denoiser>> {
        Ok(self.denoiser.model.get()?.into_owned())
    }

    /// The shapes and features of the denoiser.
    pub fn denoiser_spec(&self) -> &DenoiserSpec {
        &self.denoiser.spec
    }

    /// The denoiser, if it is this crate's UNet. Clones share their weights.
    ///
    /// # Errors
    /// If the denoiser is another, or has to be loaded and that fails.
    pub fn unet(&self) -> Result<Cow<'_, UNet2DConditionModel>> {
        let unet = match self.denoiser.model.get()? {
            Cow::Borrowed(denoiser) => denoiser.as_unet().map(Cow::Borrowed),
            Cow::Owned(denoiser) => denoiser.as_unet().cloned().map(Cow::Owned),
        };
        unet.ok_or_else(|| Error::option("denoiser", "is not the UNet of this crate, which was asked for"))
    }

    /// The autoencoder. Clones share their weights.
    ///
    /// # Errors
    /// If it has to be loaded, as with [`LoadOptions::low_memory`](super::LoadOptions::low_memory), and that fails.
    pub fn vae(&self) -> Result<Cow<'_, AutoencoderKl>> {
        self.vae.get()
    }

    /// The sizes of the text encoder.
    ///
    /// # Errors
    /// If the model was made without one.
    pub fn text_encoder_spec(&self) -> Result<ConditionerSpec> {
        Ok(self.texts()?.spec)
    }

    /// The denoiser's configuration, if it is a UNet like Stable Diffusion's.
    pub fn unet_config(&self) -> Option<&UNet2DConditionConfig> {
        self.denoiser.spec.unet.as_ref()
    }

    /// The configuration of the autoencoder.
    pub fn vae_config(&self) -> &AutoencoderKlConfig {
        &self.vae_config
    }

    /// The upscaler, if the model has one.
    ///
    /// # Errors
    /// If it has to be loaded, as with [`LoadOptions::low_memory`](super::LoadOptions::low_memory), and that fails.
    pub fn upscaler(&self) -> Result<Option<Cow<'_, PixelShuffleUpscaler>>> {
        self.upscaler.as_ref().map(Component::get).transpose()
    }

    /// The safety checker, if the model has one and it is on.
    ///
    /// # Errors
    /// If it has to be loaded, as with [`LoadOptions::low_memory`](super::LoadOptions::low_memory), and that fails.
    pub fn safety_checker(&self) -> Result<Option<Cow<'_, SafetyChecker>>> {
        self.safety_checker.as_ref().map(Component::get).transpose()
    }

    /// The noise levels, corrected by [`SchedulerConfig::for_latents`] if read from a file.
    pub fn scheduler(&self) -> &SchedulerConfig {
        &self.scheduler
    }

    /// The device it computes on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Fits a map from latents to small images, without the decoder.
    ///
    /// # Errors
    /// If decoding fails.
    pub fn latent_preview(&self) -> Result<LatentPreview> {
        LatentPreview::new(&*self.vae()?, &self.device)
    }

    /// How long loading took.
    pub fn load_time(&self) -> Duration {
        self.load_time
    }
}
