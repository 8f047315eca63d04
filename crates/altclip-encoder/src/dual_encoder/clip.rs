//! Loads OpenAI's CLIP, and others in the same layout (transformers' `CLIPModel`), as a [`DualEncoder`].
//!
//! Learning Transferable Visual Models From Natural Language Supervision, <https://arxiv.org/abs/2103.00020>.

use candle_core::{DType, Device, Tensor};
use fused_ops::Linear;
use model_files::checkpoint::Checkpoint;
use model_files::config::{ConfigFile, FieldTable};
use model_files::in_folder;
use model_files::source::ModelSource;
use serde::Deserialize;

use super::config::Towers;
use super::{DualEncoder, Properties, TextPadding, read_logit_scale};
use crate::clip_text::{ClipTextConfig, ClipTextModel};
use crate::error::Result;
use crate::transformers_fields;
use crate::vision::{ClipVisionTower, VisionConfig};

/// `config.json` of a CLIP (`CLIPConfig` of transformers).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(from = "RawClipConfig")]
pub struct ClipConfig {
    /// The text tower.
    pub text_config: ClipTextConfig,
    /// The image tower. Its `projection_dim` was overridden by the one below.
    pub vision_config: VisionConfig,
    /// Width of the joint space of images and texts.
    pub projection_dim: usize,
}

impl ConfigFile for ClipConfig {
    const FIELDS: FieldTable = transformers_fields::CLIP;
}

#[derive(Deserialize)]
struct RawClipConfig {
    #[serde(flatten)]
    towers: Towers<ClipTextConfig>,
    #[serde(default = "default_projection_dim")]
    projection_dim: usize,
}

fn default_projection_dim() -> usize {
    512
}

impl From<RawClipConfig> for ClipConfig {
    fn from(RawClipConfig { towers, projection_dim }: RawClipConfig) -> Self {
        let vision_config = VisionConfig { projection_dim, ..towers.vision };
        Self { text_config: towers.text, vision_config, projection_dim }
    }
}

/// CLIP: the projected states of a text's end and an image's class token.
#[derive(Debug, Clone)]
pub struct Clip {
    text_model: ClipTextModel,
    text_projection: Linear,
    vision: ClipVisionTower,
    properties: Properties,
}

impl Clip {
    /// Reads `config.json` and the weights in this folder of `source`, "" for the root: `text_model.*`,
    /// `text_projection.weight`, `vision_model.*`, `visual_projection.weight` and `logit_scale`.
    ///
    /// # Errors
    /// If a file is missing, is damaged, or contradicts the configuration.
    pub fn load(source: &ModelSource, folder: &str, dtype: DType, device: &Device) -> Result<Self> {
        let config: ClipConfig = source.read_config(&in_folder(folder, "config.json"))?;
        let checkpoint = Checkpoint::open(source, folder)?;
        let vb = checkpoint.var_builder(dtype, device)?;
        let (hidden, dim) = (config.text_config.hidden_size, config.projection_dim);
        Ok(Self {
            text_model: ClipTextModel::new(&config.text_config, vb.pp("text_model"))?,
            text_projection: Linear::new(hidden, dim, false, vb.pp("text_projection"))?,
            vision: ClipVisionTower::new(&config.vision_config, vb)?,
            properties: Properties {
                logit_scale: read_logit_scale(&checkpoint)?,
                logit_bias: None,
                projection_dim: dim,
                image_size: config.vision_config.image_size,
                max_tokens: config.text_config.max_position_embeddings,
                vocab_size: config.text_config.vocab_size,
                device: device.clone(),
                dtype,
                padding: TextPadding::Masked,
            },
        })
    }
}

impl DualEncoder for Clip {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn encode_text(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        Ok(self.text_projection.forward(&self.text_model.forward(input_ids, attention_mask)?)?)
    }

    fn text_hidden_states(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        Ok(self.text_model.hidden_states(input_ids, attention_mask)?)
    }

    fn encode_image(&self, pixel_values: &Tensor) -> Result<Tensor> {
        Ok(self.vision.forward(&pixel_values.to_device(&self.properties.device)?)?)
    }
}
