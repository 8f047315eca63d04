//! Encodes images with CLIP's image tower.
//!
//! Learning Transferable Visual Models From Natural Language Supervision, <https://arxiv.org/abs/2103.00020>;
//! `CLIPVisionModelWithProjection` of transformers. Layer norms precede their blocks (pre-LN).

use candle_core::{Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use fused_ops::{Conv2d, Conv2dOptions, LayerNorm, Linear, Padding, for_computing};
use model_files::config::{ConfigFile, FieldTable};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::activation::HiddenAct;
use crate::checked::checked;
use crate::clip_layer::{AttentionMask, ClipLayer};
use crate::layer_shape::{
    INITIALIZER_RANGE, LARGEST_WIDTH, LayerShape, MOST_LAYERS, check_limits, check_positive,
};
use crate::transformers_fields;

/// `config.json` of an image tower (`CLIPVisionConfig` of transformers).
///
/// Missing fields have transformers' defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", default)]
pub struct VisionConfig {
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Width between the two linear layers of the feed-forward block.
    pub intermediate_size: usize,
    /// Width of the joint space of images and texts.
    pub projection_dim: usize,
    /// Number of transformer layers.
    pub num_hidden_layers: usize,
    /// Attention heads of each layer; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Colour channels of an image.
    pub num_channels: usize,
    /// Side of an image in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Activation of the feed-forward block.
    pub hidden_act: HiddenAct,
    /// Epsilon of every layer norm.
    pub layer_norm_eps: f64,
}

impl Default for VisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            projection_dim: 512,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 32,
            hidden_act: HiddenAct::QuickGelu,
            layer_norm_eps: 1e-5,
        }
    }
}

impl ConfigFile for VisionConfig {
    const FIELDS: FieldTable = transformers_fields::CLIP_VISION;
}

impl<'de> Deserialize<'de> for VisionConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        checked(Self::deserialize(deserializer)?, Self::check)
    }
}

impl Serialize for VisionConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

/// The largest side of an image tower's input, in pixels.
const LARGEST_SIDE: usize = 1 << 14;

impl VisionConfig {
    /// Checks that the fields are consistent.
    ///
    /// # Errors
    /// Names the first invalid field, with what was expected.
    pub fn check(&self) -> std::result::Result<(), String> {
        check_limits([
            ("num_hidden_layers", self.num_hidden_layers, MOST_LAYERS),
            ("num_channels", self.num_channels, LARGEST_WIDTH),
            ("projection_dim", self.projection_dim, LARGEST_WIDTH),
            ("image_size", self.image_size, LARGEST_SIDE),
        ])?;
        self.layer_shape().check()?;
        check_positive([("num_channels", self.num_channels)])?;
        if self.patch_size == 0 || self.image_size < self.patch_size {
            return Err(format!(
                "patch_size is {}, expected 1 to image_size {}",
                self.patch_size, self.image_size
            ));
        }
        Ok(())
    }

    pub(crate) fn layer_shape(&self) -> LayerShape {
        let &Self { hidden_size, intermediate_size, num_attention_heads, hidden_act, layer_norm_eps, .. } =
            self;
        LayerShape { hidden_size, intermediate_size, num_attention_heads, hidden_act, layer_norm_eps }
    }

    /// Rows of the position embedding: the class token's, then one per patch.
    pub(crate) fn positions(&self) -> usize {
        self.patches().saturating_add(1)
    }

    /// Patches of an image.
    pub(crate) fn patches(&self) -> usize {
        let per_side = self.image_size / self.patch_size;
        per_side.saturating_mul(per_side)
    }
}

/// Maps images to vectors: the transformer and the projection into the joint space.
#[derive(Debug, Clone)]
pub struct ClipVisionTower {
    vision_model: VisionTransformer,
    visual_projection: Linear,
}

impl ClipVisionTower {
    /// Reads `vision_model.*` and `visual_projection.weight` under `vb`.
    ///
    /// # Errors
    /// If the configuration contradicts itself, or a weight is missing or has another shape.
    pub fn new(config: &VisionConfig, vb: VarBuilder) -> Result<Self> {
        Self::from_parts(config, vb.pp("vision_model"), vb.pp("visual_projection"))
    }

    /// Reads the transformer under `transformer`, and the weight of the projection under `projection`.
    pub(crate) fn from_parts(
        config: &VisionConfig,
        transformer: VarBuilder,
        projection: VarBuilder,
    ) -> Result<Self> {
        Ok(Self {
            vision_model: VisionTransformer::new(config, transformer)?,
            visual_projection: Linear::new(config.hidden_size, config.projection_dim, false, projection)?,
        })
    }

    /// Image embeddings, not normalised: (batch, projection_dim), in the weights' dtype.
    ///
    /// * `pixel_values` (batch, channels, image_size, image_size), normalised as by
    ///   [`ImageProcessor`](crate::image_processor::ImageProcessor)
    ///
    /// # Errors
    /// If the images have another size.
    pub fn forward(&self, pixel_values: &Tensor) -> Result<Tensor> {
        self.visual_projection.forward(&self.vision_model.forward(pixel_values)?)
    }

    /// The transformer without the projection.
    pub fn vision_model(&self) -> &VisionTransformer {
        &self.vision_model
    }
}

/// The vision transformer: patches to hidden states.
#[derive(Debug, Clone)]
pub struct VisionTransformer {
    embeddings: VisionEmbeddings,
    pre_layer_norm: LayerNorm,
    layers: Vec<ClipLayer>,
    post_layer_norm: LayerNorm,
}

impl VisionTransformer {
    /// Reads `embeddings.*`, `pre_layrnorm.*`, `encoder.layers.*` and `post_layernorm.*` under `vb`.
    ///
    /// # Errors
    /// If the configuration contradicts itself, or a weight is missing or has another shape.
    pub fn new(config: &VisionConfig, vb: VarBuilder) -> Result<Self> {
        config.check().map_err(candle_core::Error::msg)?;
        let norm = |name: &str| LayerNorm::new(config.hidden_size, config.layer_norm_eps, vb.pp(name));
        let (shape, layers) = (config.layer_shape(), vb.pp("encoder.layers"));
        Ok(Self {
            embeddings: VisionEmbeddings::new(config, vb.pp("embeddings"))?,
            pre_layer_norm: norm("pre_layrnorm")?, // spelled like this in every checkpoint
            layers: (0..config.num_hidden_layers)
                .map(|index| ClipLayer::new(&shape, layers.pp(index)))
                .collect::<Result<_>>()?,
            post_layer_norm: norm("post_layernorm")?,
        })
    }

    /// Hidden states after the last layer, class token first: (batch, 1 + patches, hidden_size).
    pub fn hidden_states(&self, pixel_values: &Tensor) -> Result<Tensor> {
        self.hidden_states_after(self.layers.len(), pixel_values)
    }

    /// Hidden states after the last layer, all normalised by `post_layernorm`.
    pub(crate) fn normalised_hidden_states(&self, pixel_values: &Tensor) -> Result<Tensor> {
        self.post_layer_norm.forward(&self.hidden_states(pixel_values)?)
    }

    /// Hidden states before the last layer (`hidden_states[-2]` of transformers), class token first: (batch, 1 + patches,
    /// hidden_size).
    pub fn penultimate_hidden_states(&self, pixel_values: &Tensor) -> Result<Tensor> {
        self.hidden_states_after(self.layers.len().saturating_sub(1), pixel_values)
    }

    fn hidden_states_after(&self, layers: usize, pixel_values: &Tensor) -> Result<Tensor> {
        let mut x = self.pre_layer_norm.forward(&self.embeddings.forward(pixel_values)?)?;
        for layer in self.layers.iter().take(layers) {
            x = layer.forward(&x, AttentionMask::None)?;
        }
        Ok(x)
    }

    /// The class token's final state, normalised by `post_layernorm`: (batch, hidden_size).
    pub fn forward(&self, pixel_values: &Tensor) -> Result<Tensor> {
        self.post_layer_norm.forward(&self.class_states(pixel_values)?)
    }

    /// The class token's final state: (batch, hidden_size). The last layer computes no other.
    pub(crate) fn class_states(&self, pixel_values: &Tensor) -> Result<Tensor> {
        let before = self.layers.len().saturating_sub(1);
        let x = self.hidden_states_after(before, pixel_values)?;
        let class = match self.layers.last() {
            Some(last) => last.forward_first(&x)?,
            None => x.narrow(1, 0, 1)?,
        };
        class.squeeze(1)?.contiguous()
    }
}

/// A learned class token and the patch embeddings, with learned positions.
#[derive(Debug, Clone)]
struct VisionEmbeddings {
    class_embedding: Tensor,    // (hidden_size)
    position_embedding: Tensor, // (1 + patches, hidden_size)
    patch_embedding: Conv2d,
    channels: usize,
    image_size: usize,
}

impl VisionEmbeddings {
    fn new(config: &VisionConfig, vb: VarBuilder) -> Result<Self> {
        let hidden = config.hidden_size;
        let class_init = Init::Randn { mean: 0., stdev: (hidden as f64).powf(-0.5) };
        let position_init = Init::Randn { mean: 0., stdev: INITIALIZER_RANGE };
        let options = Conv2dOptions { stride: config.patch_size, padding: Padding::same(0), upsample: false };
        Ok(Self {
            class_embedding: for_computing(vb.get_with_hints(hidden, "class_embedding", class_init)?)?,
            position_embedding: for_computing(vb.pp("position_embedding").get_with_hints(
                (config.positions(), hidden),
                "weight",
                position_init,
            )?)?,
            patch_embedding: Conv2d::new_no_bias(
                config.num_channels,
                hidden,
                config.patch_size,
                options,
                vb.pp("patch_embedding"),
            )?,
            channels: config.num_channels,
            image_size: config.image_size,
        })
    }

    fn forward(&self, pixel_values: &Tensor) -> Result<Tensor> {
        let (batch, channels, height, width) = pixel_values.dims4()?;
        if channels != self.channels {
            bail!("the image has {channels} channels, the image tower expects {}", self.channels)
        }
        if (height, width) != (self.image_size, self.image_size) {
            bail!("the image is {width}×{height} pixels, the image tower expects {0}×{0}", self.image_size)
        }
        let pixels =
            pixel_values.to_dtype(self.class_embedding.dtype())?.permute((0, 2, 3, 1))?.contiguous()?;
        let patches = self.patch_embedding.forward(&pixels)?; // (batch, rows, columns, hidden_size)
        let (_, rows, columns, hidden) = patches.dims4()?;
        let patches = patches.reshape((batch, rows * columns, hidden))?;
        let class = self.class_embedding.expand((batch, 1, hidden))?;
        Tensor::cat(&[&class, &patches], 1)?.broadcast_add(&self.position_embedding)
    }
}
