//! Loads SigLIP and SigLIP 2 of a fixed resolution (`SiglipModel` of transformers) as a [`DualEncoder`].
//!
//! The probability that a text matches an image is the sigmoid of their logit, whatever the other texts are.

use candle_core::{DType, Device, Tensor};
use model_files::checkpoint::Checkpoint;
use model_files::config::{ConfigFile, FieldTable};
use model_files::source::ModelSource;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{DualEncoder, Properties, TextPadding};
use crate::clip_text::ClipTextConfig;
use crate::error::{Error, Result};
use crate::siglip::{SiglipTextModel, SiglipVisionModel, pooling_name, pooling_parts};
use crate::transformers_fields;
use crate::vision::VisionConfig;

/// `config.json` of a SigLIP (`SiglipConfig` of transformers).
///
/// Missing fields have transformers' defaults.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "RawSiglipConfig")]
pub struct SiglipConfig {
    /// The text tower. It has no use for `eos_token_id`.
    pub text_config: ClipTextConfig,
    /// The image tower. Its `projection_dim` is the width of the joint space.
    pub vision_config: VisionConfig,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawSiglipConfig {
    text_config: Map<String, Value>,
    vision_config: Map<String, Value>,
}

impl TryFrom<RawSiglipConfig> for SiglipConfig {
    type Error = String;

    fn try_from(raw: RawSiglipConfig) -> std::result::Result<Self, String> {
        let RawSiglipConfig { text_config: mut text, vision_config: mut vision } = raw;
        // A text is represented by its last position, whatever stands there.
        text.remove("eos_token_id");
        let projection_size = text.remove("projection_size").filter(|size| !size.is_null());
        let both = [("hidden_act", json!("gelu_pytorch_tanh")), ("layer_norm_eps", json!(1e-6))];
        add_missing(&mut text, both.clone());
        add_missing(
            &mut text,
            [
                ("hidden_size", json!(768)),
                ("intermediate_size", json!(3072)),
                ("max_position_embeddings", json!(64)),
                ("num_attention_heads", json!(12)),
                ("vocab_size", json!(32000)),
            ],
        );
        let text_config: ClipTextConfig = read("text_config", text)?;
        add_missing(&mut vision, both);
        add_missing(&mut vision, [("patch_size", json!(16))]);
        let projection_dim = projection_size.unwrap_or_else(|| json!(text_config.hidden_size));
        vision.insert("projection_dim".to_owned(), projection_dim);
        Ok(Self { text_config, vision_config: read("vision_config", vision)? })
    }
}

/// Adds the fields that are missing, where SigLIP's defaults are not CLIP's.
fn add_missing<const FIELDS: usize>(fields: &mut Map<String, Value>, defaults: [(&str, Value); FIELDS]) {
    for (name, value) in defaults {
        fields.entry(name).or_insert(value);
    }
}

fn read<T: DeserializeOwned>(name: &str, fields: Map<String, Value>) -> std::result::Result<T, String> {
    serde_json::from_value(Value::Object(fields)).map_err(|error| format!("{name}: {error}"))
}

impl ConfigFile for SiglipConfig {
    const FIELDS: FieldTable = transformers_fields::SIGLIP;
}

impl SiglipConfig {
    /// Reads `config.json` at the root of `source`.
    pub(super) fn read(source: &ModelSource) -> Result<Self> {
        let config: Self = source.read_config("config.json")?;
        let vision = &config.vision_config;
        if vision.projection_dim != vision.hidden_size {
            return Err(Error::config(
                "config.json",
                format!(
                    "texts become vectors of {} values and images of {}, expected the same",
                    vision.projection_dim, vision.hidden_size
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
            text_model: SiglipTextModel::new(text, vision.projection_dim, vb.pp("text_model"))?,
            vision_model: SiglipVisionModel::new(vision, vb.pp("vision_model"))?,
            properties: Properties {
                logit_scale: scalar("logit_scale")?.exp(),
                logit_bias: Some(scalar("logit_bias")?),
                projection_dim: vision.projection_dim,
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
