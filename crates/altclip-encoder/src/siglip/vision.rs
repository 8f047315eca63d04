//! Encodes images with SigLIP's image tower.

use candle_core::{Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use fused_ops::{Conv2d, Conv2dOptions, LayerNorm, Padding, for_computing};

use super::pooling::AttentionPooling;
use crate::clip_layer::{AttentionMask, ClipLayer};
use crate::layer_shape::INITIALIZER_RANGE;
use crate::vision::VisionConfig;

/// `vision_model`.
#[derive(Debug, Clone)]
pub struct SiglipVisionModel {
    patch_embedding: Conv2d,
    position_embedding: Tensor, // (patches, hidden_size)
    layers: Vec<ClipLayer>,
    post_layer_norm: LayerNorm,
    head: AttentionPooling,
    channels: usize,
    image_size: usize,
}

impl SiglipVisionModel {
    /// Reads `embeddings.*`, `encoder.layers.*`, `post_layernorm.*` and `head.*` under `vb`. There is no projection.
    ///
    /// # Errors
    /// If the configuration contradicts itself, or a weight is missing or has another shape.
    pub fn new(config: &VisionConfig, vb: VarBuilder) -> Result<Self> {
        config.check().map_err(candle_core::Error::msg)?;
        let init = Init::Randn { mean: 0., stdev: INITIALIZER_RANGE };
        let positions = (config.patches(), config.hidden_size);
        let positions = vb.pp("embeddings.position_embedding").get_with_hints(positions, "weight", init)?;
        Self::with_positions(config, positions, vb)
    }

    /// The same with `positions`, (patches, hidden_size), which other libraries store in another shape.
    pub(crate) fn with_positions(config: &VisionConfig, positions: Tensor, vb: VarBuilder) -> Result<Self> {
        config.check().map_err(candle_core::Error::msg)?;
        let (hidden, expected) = (config.hidden_size, [config.patches(), config.hidden_size]);
        if positions.dims() != expected {
            bail!("the position embedding has shape {:?}, expected {expected:?}", positions.dims())
        }
        let options = Conv2dOptions { stride: config.patch_size, padding: Padding::same(0), upsample: false };
        let patches = vb.pp("embeddings.patch_embedding");
        let (shape, layers) = (config.layer_shape(), vb.pp("encoder.layers"));
        Ok(Self {
            patch_embedding: Conv2d::new(config.num_channels, hidden, config.patch_size, options, patches)?,
            position_embedding: for_computing(positions)?,
            layers: (0..config.num_hidden_layers)
                .map(|index| ClipLayer::new(&shape, layers.pp(index)))
                .collect::<Result<_>>()?,
            post_layer_norm: LayerNorm::new(hidden, config.layer_norm_eps, vb.pp("post_layernorm"))?,
            head: AttentionPooling::new(&shape, vb.pp("head"))?,
            channels: config.num_channels,
            image_size: config.image_size,
        })
    }

    /// The vector of each image, not normalised: (batch, hidden_size).
    ///
    /// * `pixel_values` (batch, channels, image_size, image_size), normalised as by
    ///   [`ImageProcessor`](crate::image_processor::ImageProcessor)
    ///
    /// # Errors
    /// If the images have another size.
    pub fn forward(&self, pixel_values: &Tensor) -> Result<Tensor> {
        let (_, channels, height, width) = pixel_values.dims4()?;
        if channels != self.channels {
            bail!("the image has {channels} channels, the image tower expects {}", self.channels)
        }
        if (height, width) != (self.image_size, self.image_size) {
            bail!("the image is {width}×{height} pixels, the image tower expects {0}×{0}", self.image_size)
        }
        let dtype = self.position_embedding.dtype();
        let pixels = pixel_values.to_dtype(dtype)?.permute((0, 2, 3, 1))?.contiguous()?;
        let patches = self.patch_embedding.forward(&pixels)?; // (batch, rows, columns, hidden_size)
        let mut x = patches.flatten(1, 2)?.broadcast_add(&self.position_embedding)?;
        for layer in &self.layers {
            x = layer.forward(&x, AttentionMask::None)?;
        }
        self.head.forward(&self.post_layer_norm.forward(&x)?)
    }
}
