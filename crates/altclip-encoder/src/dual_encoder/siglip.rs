//! Loads SigLIP and SigLIP 2 of a fixed resolution (`SiglipModel` of transformers) as a [`DualEncoder`].
//!
//! The probability that a text matches an image is the sigmoid of their logit, whatever the other texts are.

use candle_core::{DType, Device, Tensor};
use model_files::checkpoint::Checkpoint;
use model_files::config::{ConfigFile, FieldTable};
use model_files::source::ModelSource;
use serde::Deserialize;

use super::{DualEncoder, Properties, TextPadding};
use crate::error::{Error, Result};
use crate::siglip::{
    SiglipTextConfig, SiglipTextModel, SiglipVisionConfig, SiglipVisionModel, pooling_name, pooling_parts,
};
use crate::transformers_fields;

/// `config.json` of a SigLIP (`SiglipConfig` of transformers).
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct SiglipConfig {
    /// The text tower.
    pub text_config: SiglipTextConfig,
    /// The image tower.
    pub vision_config: SiglipVisionConfig,
}

impl ConfigFile for SiglipConfig {
    const FIELDS: FieldTable = transformers_fields::SIGLIP;
}

impl SiglipConfig {
    /// Reads `config.json` at the root of `source`.
    pub(super) fn read(source: &ModelSource) -> Result<Self> {
        let config: Self = source.read_config("config.json")?;
        let (text, vision) = (&config.text_config, &config.vision_config);
        if text.projection_dim() != vision.hidden_size {
            return Err(Error::config(
                "config.json",
                format!(
                    "texts become vectors of {} values and images of {}, expected the same",
                    text.projection_dim(),
                    vision.hidden_size
                ),
            ));
        }
        Ok(config)
    }
}

/// The weights with the projections of the pooling apart.
pub(super) fn split(checkpoint: &Checkpoint) -> Checkpoint {
    checkpoint.with_rows_split(pooling_parts).part("", |name| Some(pooling_name(name)))
}

/// SigLIP: the projected state of a text's last position, and an image read by a learned query.
#[derive(Debug, Clone)]
pub struct Siglip {
    text_model: SiglipTextModel,
    vision_model: SiglipVisionModel,
    properties: Properties,
}

impl Siglip {
    /// Reads `config.json` and the weights at the root of `source`: `text_model.*`, `vision_model.*`, `logit_scale` and
    /// `logit_bias`.
    ///
    /// # Errors
    /// If a file is missing, is damaged, or contradicts the configuration.
    pub fn load(source: &ModelSource, dtype: DType, device: &Device) -> Result<Self> {
        let config = SiglipConfig::read(source)?;
        let (text, vision) = (&config.text_config, &config.vision_config);
        let checkpoint = Checkpoint::open(source, "")?;
        let scalars = checkpoint.var_builder(DType::F32, &Device::Cpu)?;
        let scalar = |name: &str| scalars.get(1, name)?.squeeze(0)?.to_scalar::<f32>();
        let vb = split(&checkpoint).var_builder(dtype, device)?;
        Ok(Self {
            text_model: SiglipTextModel::new(text, vb.pp("text_model"))?,
            vision_model: SiglipVisionModel::new(vision, vb.pp("vision_model"))?,
            properties: Properties {
                logit_scale: scalar("logit_scale")?.exp(),
                logit_bias: Some(scalar("logit_bias")?),
                projection_dim: vision.hidden_size,
                image_size: vision.image_size,
                max_tokens: text.max_position_embeddings,
                vocab_size: text.vocab_size,
                device: device.clone(),
                dtype,
                padding: TextPadding::Read,
            },
        })
    }
}

impl DualEncoder for Siglip {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn encode_text(&self, input_ids: &Tensor, _: &Tensor) -> Result<Tensor> {
        Ok(self.text_model.forward(input_ids)?)
    }

    fn text_hidden_states(&self, input_ids: &Tensor, _: &Tensor) -> Result<Tensor> {
        Ok(self.text_model.hidden_states(input_ids)?)
    }

    fn encode_image(&self, pixel_values: &Tensor) -> Result<Tensor> {
        Ok(self.vision_model.forward(&pixel_values.to_device(&self.properties.device)?)?)
    }
}
