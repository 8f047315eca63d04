//! Adds image prompts to a UNet: IP-Adapter (Ye et al., 2023, arXiv:2308.06721), as in diffusers'
//! `IPAdapterAttnProcessor2_0` and its image projections.

mod encoder;
mod image_prompt;
mod projection;

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use fused_ops::{Linear, compute_dtype};
use model_files::checkpoint::Checkpoint;
use model_files::source::ModelSource;

use crate::layers::attention::KeyValue;
use crate::unet::{CrossAttentions, ImageContext, UNet2DConditionConfig, UNet2DConditionModel};
use crate::unused_tensors::{unused_tensors, warn_of_unused};
use crate::{Error, Result};
pub use encoder::ImageEncoder;
pub use image_prompt::ImagePrompt;
pub use projection::ImageFeatures;
use projection::{ImageProjection, PREFIX, ProjectionConfig};

/// The prefix of the weights for the UNet's cross-attentions.
const ATTENTION_PREFIX: &str = "ip_adapter";

/// Projects an image to keys and values, beside those of the text, for every cross-attention of a UNet.
#[derive(Debug, Clone)]
pub struct IpAdapter {
    image_proj: ImageProjection,
    /// In the order in which the UNet runs its cross-attentions.
    ip_adapter: Vec<IpAttention>,
    /// The channels of each of these cross-attentions.
    channels: Vec<usize>,
    config: ProjectionConfig,
    dtype: DType,
}

/// The projection for one cross-attention.
#[derive(Debug, Clone)]
struct IpAttention {
    to_k_ip: Linear,
    to_v_ip: Linear,
}

impl IpAdapter {
    /// Loads the adapter in the file `relative` of a source, such as `models/ip-adapter_sd15.safetensors` of
    /// h94/IP-Adapter, for a UNet.
    ///
    /// # Errors
    /// If the file is missing or damaged, is not an IP-Adapter, or is one for another UNet.
    pub fn from_source(
        source: &ModelSource,
        relative: &str,
        unet: &UNet2DConditionModel,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        Self::from_checkpoint(&Checkpoint::from_source(source, relative)?, unet.config(), dtype, device)
    }

    /// Loads the adapter in a file, `.safetensors` or `.bin`, for a UNet.
    ///
    /// # Errors
    /// Like [`from_source`](Self::from_source).
    pub fn from_file(
        path: &Path,
        unet: &UNet2DConditionModel,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        Self::from_checkpoint(&Checkpoint::from_file(path)?, unet.config(), dtype, device)
    }

    fn from_checkpoint(
        checkpoint: &Checkpoint,
        unet: &UNet2DConditionConfig,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let config = ProjectionConfig::of(checkpoint)?;
        let attentions = unet.cross_attentions()?;
        let width = config.width();
        if let Some(other) = attentions.widths.iter().find(|other| **other != width) {
            let problem = format!(
                "made for prompts of width {width}, but the UNet's have width {other}: IP-Adapters of Stable Diffusion 1 \
                 have 768, and fit AltDiffusion and AltDiffusion-m9"
            );
            return Err(Error::content(checkpoint.file_name(), problem));
        }
        let adapter = Self::new(config, &attentions, checkpoint.var_builder(dtype, device)?)?;
        warn_of_unused(
            checkpoint.file_name(),
            &unused_tensors(checkpoint, |vb| Self::new(config, &attentions, vb))?,
        );
        Ok(adapter)
    }

    /// Reads `image_proj.*` and `ip_adapter.*`.
    fn new(config: ProjectionConfig, attentions: &CrossAttentions, vb: VarBuilder) -> Result<Self> {
        let CrossAttentions { down, mid, up, .. } = attentions;
        // The file numbers attentions, self-attentions included, as diffusers registers them: downsampling path,
        // upsampling path, and the middle last.
        let first_up = down.len();
        let first_mid = first_up + up.len();
        let attention = |(place, channels): (usize, &usize)| -> Result<IpAttention> {
            let vb = vb.pp(ATTENTION_PREFIX).pp(2 * place + 1);
            let linear = |name: &str| Linear::new(config.width(), *channels, false, vb.pp(name));
            Ok(IpAttention { to_k_ip: linear("to_k_ip")?, to_v_ip: linear("to_v_ip")? })
        };
        let places = (down.iter().enumerate())
            .chain(mid.iter().enumerate().map(|(place, channels)| (first_mid + place, channels)))
            .chain(up.iter().enumerate().map(|(place, channels)| (first_up + place, channels)));
        Ok(Self {
            image_proj: ImageProjection::new(&config, vb.pp(PREFIX))?,
            ip_adapter: places.map(attention).collect::<Result<_>>()?,
            channels: attentions.in_order(),
            config,
            dtype: compute_dtype(vb.dtype(), vb.device()),
        })
    }

    /// Which of the encoder's outputs the adapter was trained with.
    pub fn features(&self) -> ImageFeatures {
        self.config.features()
    }

    /// Projects the encoder's [`features`](Self::features), (images, image width) or (images, rows, image width), to
    /// tokens (images, tokens, width).
    ///
    /// # Errors
    /// If the shape is another.
    pub fn tokens(&self, features: &Tensor) -> Result<Tensor> {
        let (rank, expected) = match self.features() {
            ImageFeatures::Embedding => (2, "(images, image width)"),
            ImageFeatures::HiddenStates => (3, "(images, rows, image width)"),
        };
        let width = self.config.image_width();
        if features.rank() != rank || features.dims().last() != Some(&width) {
            return Err(Error::Shape {
                tensor: "image features",
                expected: format!("{expected} with an image width of {width}"),
                found: format!("{:?}", features.dims()),
            });
        }
        self.image_proj.forward(&features.to_dtype(self.dtype)?)
    }

    /// Projects tokens (batch, tokens, width) to keys and values. The attention to them is added to the text's, times
    /// `scale`.
    fn project(&self, tokens: &Tensor, scale: f64) -> Result<ImageContext> {
        let layers = self.ip_adapter.iter().map(|layer| {
            // Attention is linear in the values, so scale them once for all steps.
            let value = (layer.to_v_ip.forward(tokens)? * scale)?;
            Ok(KeyValue { key: layer.to_k_ip.forward(tokens)?, value })
        });
        Ok(ImageContext { layers: layers.collect::<Result<_>>()? })
    }

    /// Checks that an encoder's outputs fit the adapter.
    ///
    /// # Errors
    /// If its vectors have another width.
    pub fn check_encoder(&self, encoder: &ImageEncoder) -> Result<()> {
        let (expected, found) = (self.config.image_width(), encoder.width(self.features()));
        if expected != found {
            let problem = format!(
                "its vectors have width {found}, but the IP-Adapter was trained with vectors of width {expected}: expected \
                 the encoder that was published beside it"
            );
            return Err(Error::option("image encoder", problem));
        }
        Ok(())
    }
}
