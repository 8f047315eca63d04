//! Reads the configurations of SigLIP's towers.

use model_files::config::{ConfigFile, FieldTable};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::activation::HiddenAct;
use crate::layer_shape::{LARGEST_WIDTH, LayerShape, MOST_LAYERS, MOST_TOKENS, check_limits};
use crate::transformers_fields;

/// The longest side of an image, in pixels.
const LARGEST_SIDE: usize = 1 << 14;

/// `text_config` of a SigLIP (`SiglipTextConfig` of transformers).
///
/// Missing fields have transformers' defaults.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(remote = "Self", default)]
pub struct SiglipTextConfig {
    /// Rows of the token embedding.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Width between the two linear layers of the feed-forward block.
    pub intermediate_size: usize,
    /// Number of transformer layers.
    pub num_hidden_layers: usize,
    /// Attention heads of each layer; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Rows of the position embedding: the length of every text in tokens.
    pub max_position_embeddings: usize,
    /// Width of the joint space; `hidden_size` by default.
    pub projection_size: Option<usize>,
    /// Activation of the feed-forward block.
    pub hidden_act: HiddenAct,
    /// Epsilon of every layer norm.
    pub layer_norm_eps: f64,
}

impl Default for SiglipTextConfig {
    fn default() -> Self {
        Self {
            vocab_size: 32000,
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            max_position_embeddings: 64,
            projection_size: None,
            hidden_act: HiddenAct::GeluTanh,
            layer_norm_eps: 1e-6,
        }
    }
}

/// Checked on reading, so that errors name the file.
impl<'de> Deserialize<'de> for SiglipTextConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let config = Self::deserialize(deserializer)?;
        config.check().map_err(D::Error::custom)?;
        Ok(config)
    }
}

impl ConfigFile for SiglipTextConfig {
    const FIELDS: FieldTable = transformers_fields::SIGLIP_TEXT;
}

impl SiglipTextConfig {
    pub(crate) fn layer_shape(&self) -> LayerShape {
        LayerShape {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_attention_heads: self.num_attention_heads,
            hidden_act: self.hidden_act,
            layer_norm_eps: self.layer_norm_eps,
        }
    }

    /// Width of the joint space.
    pub fn projection_dim(&self) -> usize {
        self.projection_size.unwrap_or(self.hidden_size)
    }

    /// Checks that the fields are consistent.
    ///
    /// # Errors
    /// Names the first invalid field, with what was expected.
    pub fn check(&self) -> Result<(), String> {
        check_limits([
            ("num_hidden_layers", self.num_hidden_layers, MOST_LAYERS),
            ("vocab_size", self.vocab_size, MOST_TOKENS),
            ("max_position_embeddings", self.max_position_embeddings, LARGEST_WIDTH),
            ("projection_size", self.projection_dim(), LARGEST_WIDTH),
        ])?;
        self.layer_shape().check()?;
        for (name, value) in
            [("vocab_size", self.vocab_size), ("max_position_embeddings", self.max_position_embeddings)]
        {
            if value == 0 {
                return Err(format!("{name} is 0, expected at least 1"));
            }
        }
        Ok(())
    }
}

/// `vision_config` of a SigLIP (`SiglipVisionConfig` of transformers).
///
/// Missing fields have transformers' defaults.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(remote = "Self", default)]
pub struct SiglipVisionConfig {
    /// Width of the hidden states, and of the joint space.
    pub hidden_size: usize,
    /// Width between the two linear layers of the feed-forward block.
    pub intermediate_size: usize,
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

impl Default for SiglipVisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 16,
            hidden_act: HiddenAct::GeluTanh,
            layer_norm_eps: 1e-6,
        }
    }
}

/// Checked on reading, so that errors name the file.
impl<'de> Deserialize<'de> for SiglipVisionConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let config = Self::deserialize(deserializer)?;
        config.check().map_err(D::Error::custom)?;
        Ok(config)
    }
}

impl ConfigFile for SiglipVisionConfig {
    const FIELDS: FieldTable = transformers_fields::SIGLIP_VISION;
}

impl SiglipVisionConfig {
    pub(crate) fn layer_shape(&self) -> LayerShape {
        LayerShape {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_attention_heads: self.num_attention_heads,
            hidden_act: self.hidden_act,
            layer_norm_eps: self.layer_norm_eps,
        }
    }

    /// Rows of the position embedding: one per patch.
    pub(crate) fn patches(&self) -> usize {
        let per_side = self.image_size / self.patch_size;
        per_side.saturating_mul(per_side)
    }

    /// Checks that the fields are consistent.
    ///
    /// # Errors
    /// Names the first invalid field, with what was expected.
    pub fn check(&self) -> Result<(), String> {
        check_limits([
            ("num_hidden_layers", self.num_hidden_layers, MOST_LAYERS),
            ("num_channels", self.num_channels, LARGEST_WIDTH),
            ("image_size", self.image_size, LARGEST_SIDE),
        ])?;
        self.layer_shape().check()?;
        if self.num_channels == 0 {
            return Err("num_channels is 0, expected at least 1".into());
        }
        if self.patch_size == 0 || self.image_size < self.patch_size {
            return Err(format!(
                "patch_size is {}, expected 1 to image_size {}",
                self.patch_size, self.image_size
            ));
        }
        Ok(())
    }
}
