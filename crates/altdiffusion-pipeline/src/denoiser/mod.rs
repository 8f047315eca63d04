//! Defines the interface between the sampling loop and a model: this crate's UNet, or any other.

mod unet;

use candle_core::Tensor;

use crate::Result;
use crate::text_states::TextStates;
use crate::unet::{AdditionalResiduals, ImageContext, UNet2DConditionConfig, UNet2DConditionModel};

/// A model that predicts the noise in latents: [`UNet2DConditionModel`], or one of your own.
///
/// [`AltDiffusion::from_parts`](crate::AltDiffusion::from_parts) draws with any denoiser, and
/// [`denoise`](crate::denoise) runs the loop alone. Threads can share a denoiser; the state of a run is in its
/// [`PreparedDenoiser`].
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
    /// The shapes it takes and returns.
    fn spec(&self) -> DenoiserSpec;

    /// Computes once what all steps of a run share, such as the keys and values of the cross-attentions.
    ///
    /// * `texts`: hidden states (batch, tokens, width), a row for each latent that [`PreparedDenoiser::predict`]
    ///   gets; with guidance, the unconditional ones first
    /// * `images`: the keys and values of the IP-Adapters, for the same batch; empty unless
    ///   [`DenoiserSpec::ip_adapter`] is set
    ///
    /// # Errors
    /// If the states do not have the model's width.
    fn prepare<'a>(
        &'a self,
        texts: &TextStates,
        images: Vec<ImageContext>,
    ) -> Result<Box<dyn PreparedDenoiser + 'a>>;

    /// This crate's UNet, if this is one. On a GPU its forward passes are then recorded, and guidance and the
    /// scheduler's step are one kernel.
    fn as_unet(&self) -> Option<&UNet2DConditionModel> {
        None
    }
}

/// A denoiser prepared for the texts of one run.
pub trait PreparedDenoiser {
    /// Predicts the noise in a sample, or the velocity or the clean sample, as the scheduler's `prediction_type`
    /// says.
    ///
    /// * `sample` (batch, [`in_channels`](DenoiserSpec::in_channels), height, width), f32, as the scheduler scales it
    /// * `timestep`: the scheduler's, which may be fractional
    /// * `residuals`: what ControlNets add to the skips and to the middle; `None` unless [`DenoiserSpec::controlnet`]
    ///   is set
    ///
    /// Returns (batch, [`latent_channels`](DenoiserSpec::latent_channels), height, width), f32.
    ///
    /// # Errors
    /// If a tensor operation fails.
    fn predict(
        &mut self,
        sample: &Tensor,
        timestep: f64,
        residuals: Option<&AdditionalResiduals>,
    ) -> Result<Tensor>;
}

/// The shapes that a [`Denoiser`] takes and returns, and the features it supports.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[must_use]
pub struct DenoiserSpec {
    /// Channels of the samples: those of the latents or, for an inpainting model, 2 · latents + 1.
    pub in_channels: usize,
    /// Channels of the latents and of the predictions.
    pub latent_channels: usize,
    /// Width of the hidden states; `None` accepts any.
    pub context_width: Option<usize>,
    /// Height and width of the latents that it was trained on. Without it, every run has to give a size.
    pub sample_size: Option<(usize, usize)>,
    /// Whether it adds ControlNets' residuals.
    pub controlnet: bool,
    /// Whether it attends to IP-Adapters' keys and values.
    pub ip_adapter: bool,
    /// The configuration of a UNet like Stable Diffusion's, to check ControlNets and IP-Adapters against.
    pub unet: Option<UNet2DConditionConfig>,
}

impl DenoiserSpec {
    /// Describes a denoiser of latents with `latent_channels` channels, without ControlNets or IP-Adapters.
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

    /// Sets the channels of the samples, if more than those of the latents.
    pub fn in_channels(mut self, channels: usize) -> Self {
        self.in_channels = channels;
        self
    }

    /// Sets the width of the hidden states.
    pub fn context_width(mut self, width: usize) -> Self {
        self.context_width = Some(width);
        self
    }

    /// Sets the height and width of the latents that it was trained on.
    pub fn sample_size(mut self, height: usize, width: usize) -> Self {
        self.sample_size = Some((height, width));
        self
    }

    /// Sets whether it adds ControlNets' residuals.
    pub fn controlnet(mut self, controlnet: bool) -> Self {
        self.controlnet = controlnet;
        self
    }

    /// Sets whether it attends to IP-Adapters' keys and values.
    pub fn ip_adapter(mut self, ip_adapter: bool) -> Self {
        self.ip_adapter = ip_adapter;
        self
    }

    /// Sets the configuration of a UNet like Stable Diffusion's.
    pub fn unet(mut self, config: UNet2DConditionConfig) -> Self {
        self.unet = Some(config);
        self
    }

    /// Whether it takes a mask and the masked image's latents as additional channels.
    pub(crate) fn inpaints(&self) -> bool {
        self.in_channels != self.latent_channels
    }
}
