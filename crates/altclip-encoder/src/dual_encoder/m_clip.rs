//! Loads M-CLIP (`MultilingualCLIP`), an XLM-R that was taught the text vectors of a CLIP, as a [`DualEncoder`].
//!
//! Cross-lingual and Multilingual CLIP, <https://aclanthology.org/2022.lrec-1.739>: the mean of a text's states, and a
//! linear layer. The repositories (M-CLIP/XLM-Roberta-Large-Vit-L-14, -Vit-B-32, -Vit-B-16Plus) hold the text tower
//! only, so a model is a directory with the CLIP's repository in `image_encoder/`. The configuration only names XLM-R;
//! its weights give its sizes.

use candle_core::{DType, Device, Tensor};
use fused_ops::Linear;
use model_files::checkpoint::Checkpoint;
use model_files::config::{ConfigFile, FieldTable};
use model_files::source::ModelSource;
use serde::Deserialize;

use super::family::IMAGE_ENCODER;
use super::image_encoder::{SeparateImageTower, check_dim};
use super::xlm_roberta_sizes::xlm_roberta_config;
use super::{DualEncoder, Properties, TextPadding};
use crate::error::{Error, Result};
use crate::padding::CompactPrompts;
use crate::vision::ClipVisionTower;
use crate::xlm_roberta::{XlmRobertaConfig, XlmRobertaModel};

/// `config.json` of an M-CLIP (`MCLIPConfig` of multilingual_clip).
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct MClipConfig {
    /// Width of the joint space.
    #[serde(rename = "numDims")]
    pub projection_dim: usize,
    /// Width of XLM-R's states.
    #[serde(rename = "transformerDimensions")]
    pub hidden_size: usize,
}

impl ConfigFile for MClipConfig {
    const FIELDS: FieldTable = FieldTable {
        used: &["numDims", "transformerDimensions"],
        harmless: &[
            (
                "says where the model comes from and how it is loaded",
                &["architectures", "dtype", "model_type", "torch_dtype", "transformers_version"],
            ),
            ("names what the weights tell", &["modelBase"]),
        ],
        fixed: &[],
        nested: &[],
    };
}

impl MClipConfig {
    /// The XLM-R of these weights.
    pub(super) fn text(&self, checkpoint: &Checkpoint) -> Result<XlmRobertaConfig> {
        let text = xlm_roberta_config(checkpoint, "transformer.", "an M-CLIP with XLM-R")?;
        if text.hidden_size != self.hidden_size {
            return Err(Error::config(
                "config.json",
                format!(
                    "transformerDimensions is {}, expected the weights' {}",
                    self.hidden_size, text.hidden_size
                ),
            ));
        }
        Ok(text)
    }
}

/// XLM-R with a linear layer on the mean of its states, and CLIP's image tower.
#[derive(Debug, Clone)]
pub struct MClip {
    roberta: XlmRobertaModel,
    linear_transformation: Linear,
    vision: ClipVisionTower,
    pad_token_id: u32,
    properties: Properties,
}

impl MClip {
    /// Reads `config.json` and the weights at the root of `source` (`transformer.*` and `LinearTransformation.*`), and
    /// the image tower and `logit_scale` of the CLIP in `image_encoder`.
    ///
    /// # Errors
    /// If a file is missing, is damaged, or contradicts the configuration.
    pub fn load(source: &ModelSource, dtype: DType, device: &Device) -> Result<Self> {
        let config: MClipConfig = source.read_config("config.json")?;
        let checkpoint = Checkpoint::open(source, "")?;
        let text = config.text(&checkpoint)?;
        let images = SeparateImageTower::load(source, &[IMAGE_ENCODER], dtype, device)?;
        check_dim(images.projection_dim, config.projection_dim, "config.json")?;
        let vb = checkpoint.var_builder(dtype, device)?;
        let linear = vb.pp("LinearTransformation");
        Ok(Self {
            roberta: XlmRobertaModel::new(&text, vb.pp("transformer"))?,
            linear_transformation: Linear::new(text.hidden_size, config.projection_dim, true, linear)?,
            vision: images.tower,
            pad_token_id: text.pad_token_id,
            properties: Properties {
                logit_scale: images.logit_scale,
                logit_bias: None,
                projection_dim: config.projection_dim,
                image_size: images.image_size,
                max_tokens: text.max_tokens(),
                vocab_size: text.vocab_size,
                device: device.clone(),
                dtype,
                padding: TextPadding::Skipped,
            },
        })
    }
}

impl DualEncoder for MClip {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn encode_text(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        let prompts = CompactPrompts::new(input_ids, Some(attention_mask), self.pad_token_id)?;
        let prompts = prompts.without_hidden_padding();
        let mean = prompts.mean_rows(&self.roberta.encode(&prompts)?)?;
        Ok(self.linear_transformation.forward(&mean)?)
    }

    fn text_hidden_states(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        let prompts = CompactPrompts::new(input_ids, Some(attention_mask), self.pad_token_id)?;
        Ok(prompts.expand(&self.roberta.encode(&prompts)?)?)
    }

    fn encode_image(&self, pixel_values: &Tensor) -> Result<Tensor> {
        Ok(self.vision.forward(&pixel_values.to_device(&self.properties.device)?)?)
    }
}
