//! Loads Chinese-CLIP (`ChineseCLIPModel` of transformers) as a [`DualEncoder`].
//!
//! Chinese CLIP: Contrastive Vision-Language Pretraining in Chinese, <https://arxiv.org/abs/2211.01335>.

use candle_core::{DType, Device, Tensor};
use fused_ops::Linear;
use model_files::checkpoint::Checkpoint;
use model_files::config::{ConfigFile, FieldTable};
use model_files::source::ModelSource;
use serde::Deserialize;

use super::config::Towers;
use super::{DualEncoder, Properties, TextPadding, read_logit_scale};
use crate::bert::{BertConfig, BertModel};
use crate::error::Result;
use crate::transformers_fields;
use crate::vision::{ClipVisionTower, VisionConfig};

/// `config.json` of a Chinese-CLIP (`ChineseCLIPConfig` of transformers).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(from = "RawChineseClipConfig")]
pub struct ChineseClipConfig {
    /// The text tower.
    pub text_config: BertConfig,
    /// The image tower. Its `projection_dim` was overridden by the one below.
    pub vision_config: VisionConfig,
    /// Width of the joint space of images and texts.
    pub projection_dim: usize,
}

impl ConfigFile for ChineseClipConfig {
    const FIELDS: FieldTable = transformers_fields::CHINESE_CLIP;
}

#[derive(Deserialize)]
struct RawChineseClipConfig {
    #[serde(flatten)]
    towers: Towers<BertConfig>,
    #[serde(default = "default_projection_dim")]
    projection_dim: usize,
}

fn default_projection_dim() -> usize {
    512
}

impl From<RawChineseClipConfig> for ChineseClipConfig {
    fn from(RawChineseClipConfig { towers, projection_dim }: RawChineseClipConfig) -> Self {
        let vision_config = VisionConfig { projection_dim, ..towers.vision };
        Self { text_config: towers.text, vision_config, projection_dim }
    }
}

/// Chinese-CLIP: the projected state of `[CLS]`, without BERT's pooler, and CLIP's image tower.
#[derive(Debug, Clone)]
pub struct ChineseClip {
    text_model: BertModel,
    text_projection: Linear,
    vision: ClipVisionTower,
    properties: Properties,
}

impl ChineseClip {
    /// Reads `config.json` and the weights at the root of `source`: `text_model.*`, `text_projection.weight`,
    /// `vision_model.*`, `visual_projection.weight` and `logit_scale`.
    ///
    /// # Errors
    /// If a file is missing, is damaged, or contradicts the configuration.
    pub fn load(source: &ModelSource, dtype: DType, device: &Device) -> Result<Self> {
        let config: ChineseClipConfig = source.read_config("config.json")?;
        let checkpoint = Checkpoint::open(source, "")?;
        let vb = checkpoint.var_builder(dtype, device)?;
        let (hidden, dim) = (config.text_config.hidden_size, config.projection_dim);
        Ok(Self {
            text_model: BertModel::new(&config.text_config, vb.pp("text_model"))?,
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

impl DualEncoder for ChineseClip {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn encode_text(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        let class = self.text_model.class_states(input_ids, attention_mask)?;
        Ok(self.text_projection.forward(&class)?)
    }

    fn text_hidden_states(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        Ok(self.text_model.forward(input_ids, attention_mask)?)
    }

    fn encode_image(&self, pixel_values: &Tensor) -> Result<Tensor> {
        Ok(self.vision.forward(&pixel_values.to_device(&self.properties.device)?)?)
    }
}
