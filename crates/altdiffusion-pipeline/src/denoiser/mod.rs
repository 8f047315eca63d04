//! Defines what the sampling loop asks of a model: the UNet of this crate, or any other.

mod unet;

use candle_core::Tensor;

use crate::Result;
use crate::text_states::TextStates;
use crate::unet::{AdditionalResiduals, ImageContext, UNet2DConditionConfig, UNet2DConditionModel};

/// A model that finds the noise in latents: [`UNet2DConditionModel`], or one of your own.
///
/// [`AltDiffusion::from_parts`](crate::AltDiffusion::from_parts) draws with any, and [`denoise`](crate::denoise) runs the
/// loop alone. Threads share a denoiser; what changes during a run is in the [`PreparedDenoiser`] of that run.
///
/// ```
/// use altdiffusion_pipeline::unet::{AdditionalResiduals, ImageContext};
/// use altdiffusion_pipeline::{Denoiser, DenoiserSpec, PreparedDenoiser, Result, TextStates};
/// use candle_core::Tensor;
///
/// /// Finds that all is noise.
/// struct AllNoise;
///
/// impl Denoiser for AllNoise {
///     fn spec(&self) -> DenoiserSpec {
///         DenoiserSpec::new(4)
///     }
///
///     fn prepare<'a>(
///         &'a self,
///         _texts: &TextStates,
///         _images: Vec<ImageContext>,
///     ) -> Result<Box<dyn PreparedDenoiser + 'a>> {
///         Ok(Box::new(Self))
///     }
/// }
///
/// impl PreparedDenoiser for AllNoise {
///     fn predict(
///         &mut self,
///         sample: &Tensor,
///         _timestep: f64,
///         _residuals: Option<&AdditionalResiduals>,
///     ) -> Result<Tensor> {
///         Ok(sample.clone())
///     }
/// }
/// ```
pub trait Denoiser: Send + Sync {
    /// What it takes and gives.
    fn spec(&self) -> DenoiserSpec;

    /// Does once what all steps of a run share, such as the keys and values of the cross-attentions.
    ///
    /// * `texts`: hidden states (batch, tokens, width), a row for each latent that [`PreparedDenoiser::predict`] will get:
    ///   with guidance first those that lead away, then those that lead there
    /// * `images`: the keys and values of the IP-Adapters, for the same batch; empty unless [`DenoiserSpec::ip_adapter`]
    ///
    /// # Errors
    /// When the states have another width than the model takes.
    fn prepare<'a>(
        &'a self,
        texts: &TextStates,
        images: Vec<ImageContext>,
    ) -> Result<Box<dyn PreparedDenoiser + 'a>>;

    /// The UNet of this crate, if this is one: on a GPU its forward passes are recorded, and guidance and the scheduler's
    /// step are computed in one kernel.
    fn as_unet(&self) -> Option<&UNet2DConditionModel> {
        None
    }
}

/// A denoiser in a run, whose texts do not change any more.
pub trait PreparedDenoiser {
    /// The noise in a sample, or the velocity, or the clean sample: what the scheduler's `prediction_type` says.
    ///
    /// * `sample` (batch, [`in_channels`](DenoiserSpec::in_channels), height, width), f32, as the scheduler scales it
    /// * `timestep`: the scheduler's, which may be fractional
    /// * `residuals`: what ControlNets add to the skips and to the middle; never there unless
    ///   [`DenoiserSpec::controlnet`]
    ///
    /// Returns (batch, [`latent_channels`](DenoiserSpec::latent_channels), height, width), f32.
    ///
    /// # Errors
    /// When a tensor operation fails.
    fn predict(
        &mut self,
        sample: &Tensor,
        timestep: f64,
        residuals: Option<&AdditionalResiduals>,
    ) -> Result<Tensor>;
}

/// What a [`Denoiser`] takes and gives, and what it can do beside that.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[must_use]
pub struct DenoiserSpec {
    /// Channels of the samples: those of the latents, or of a model that was trained to inpaint 2 · latents + 1.
    pub in_channels: usize,
    /// Channels of the latents and of the predictions.
    pub latent_channels: usize,
    /// Width of the hidden states; any, if none is given.
    pub context_width: Option<usize>,
    /// Height and width of the latents that it was trained on. Without it, a size has to be given for each run.
    pub sample_size: Option<(usize, usize)>,
    /// Whether it adds the residuals of ControlNets.
    pub controlnet: bool,
    /// Whether it attends to the keys and values of IP-Adapters.
    pub ip_adapter: bool,
    /// The configuration of a UNet like Stable Diffusion's, which ControlNets and IP-Adapters are checked against.
    pub unet: Option<UNet2DConditionConfig>,
}

impl DenoiserSpec {
    /// Of a denoiser of latents with so many channels, which knows neither ControlNets nor IP-Adapters.
    pub fn new(latent_channels: usize) -> Self {
        Self {
            in_channels: latent_channels,
            latent_channels,
            context_width: None,
            sample_size: None,
            controlnet: false,
            ip_adapter: false,
            unet: None,
        }
    }

    /// Channels of the samples, where they are more than those of the latents.
    pub fn in_channels(mut self, channels: usize) -> Self {
        self.in_channels = channels;
        self
    }

    /// Width of the hidden states.
    pub fn context_width(mut self, width: usize) -> Self {
        self.context_width = Some(width);
        self
    }

    /// Height and width of the latents that it was trained on.
    pub fn sample_size(mut self, height: usize, width: usize) -> Self {
        self.sample_size = Some((height, width));
        self
    }

    /// Whether it adds the residuals of ControlNets.
    pub fn controlnet(mut self, controlnet: bool) -> Self {
        self.controlnet = controlnet;
        self
    }

    /// Whether it attends to the keys and values of IP-Adapters.
    pub fn ip_adapter(mut self, ip_adapter: bool) -> Self {
        self.ip_adapter = ip_adapter;
        self
    }

    /// The configuration of a UNet like Stable Diffusion's.
    pub fn unet(mut self, config: UNet2DConditionConfig) -> Self {
        self.unet = Some(config);
        self
    }

    /// Whether it takes a mask and the latents of what stays as additional channels.
    pub(crate) fn inpaints(&self) -> bool {
        self.in_channels != self.latent_channels
    }
}
