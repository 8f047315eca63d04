//! Implements AltCLIP: two towers that map texts and images to vectors of a joint space.
//!
//! AltCLIP: Altering the Language Encoder in CLIP for Extended Language Capabilities,
//! <https://arxiv.org/abs/2211.06679>; `AltCLIPModel` of transformers.

use candle_core::{D, DType, Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use fused_ops::{LayerNorm, Linear};
use model_files::config::{ConfigFile, FieldTable};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::padding::CompactPrompts;
use crate::transformers_fields;
use crate::vision::{ClipVisionTower, VisionConfig};
use crate::xlm_roberta::{XlmRobertaConfig, XlmRobertaModel};

/// ln(1 / 0.07): the initial logarithm of the logit scale in training.
const LOGIT_SCALE_INIT: f64 = 2.6592;

/// `config.json` of a dual encoder (`AltCLIPConfig` of transformers).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AltClipConfig {
    /// The text tower.
    pub text_config: AltClipTextConfig,
    /// The image tower. Its `projection_dim` is overridden by the one below.
    pub vision_config: VisionConfig,
    /// Width of the joint space of images and texts.
    #[serde(default = "default_projection_dim")]
    pub projection_dim: usize,
}

impl ConfigFile for AltClipConfig {
    const FIELDS: FieldTable = transformers_fields::ALT_CLIP;
}

fn default_projection_dim() -> usize {
    768
}

/// The text tower of a dual encoder (`AltCLIPTextConfig` of transformers).
///
/// Missing fields have transformers' defaults, those of XLM-R large.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AltClipTextConfig {
    /// The encoder's configuration, flattened.
    #[serde(flatten, deserialize_with = "xlm_roberta_large_unless_given")]
    pub encoder: XlmRobertaConfig,
    /// Width of the hidden states after `transformation`.
    #[serde(default = "default_projection_dim")]
    pub project_dim: usize,
}

/// Reads an encoder's configuration; missing fields are those of XLM-R large.
fn xlm_roberta_large_unless_given<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<XlmRobertaConfig, D::Error> {
    let given = Map::deserialize(deserializer)?;
    let mut fields = serde_json::to_value(XlmRobertaConfig::large()).map_err(D::Error::custom)?;
    if let Value::Object(fields) = &mut fields {
        fields.extend(given);
    }
    serde_json::from_value(fields).map_err(D::Error::custom)
}

/// Maps texts to vectors of the joint space.
#[derive(Debug, Clone)]
pub struct AltClipTextTower {
    roberta: XlmRobertaModel,
    pre_ln: LayerNorm,
    transformation: Linear,
    text_projection: Linear,
    pad_token_id: u32,
}

impl AltClipTextTower {
    /// Reads `roberta.*`, `pre_LN.*` and `transformation.*` under `vb`, and the weight of the projection to
    /// `projection_dim` under `projection`.
    ///
    /// In a dual encoder's checkpoint these are under `text_model` and `text_projection`; for a text encoder on its
    /// own, as in a diffusion model, under the root and `text_projection`.
    ///
    /// # Errors
    /// If the configuration contradicts itself, or a weight is missing or has another shape.
    pub fn new(
        config: &AltClipTextConfig,
        projection_dim: usize,
        vb: VarBuilder,
        projection: VarBuilder,
    ) -> Result<Self> {
        let encoder = &config.encoder;
        if config.project_dim == 0 {
            bail!("project_dim is 0, expected at least 1")
        }
        Ok(Self {
            roberta: XlmRobertaModel::new(encoder, vb.pp("roberta"))?,
            pre_ln: LayerNorm::new(encoder.hidden_size, encoder.layer_norm_eps, vb.pp("pre_LN"))?,
            transformation: Linear::new(
                encoder.hidden_size,
                config.project_dim,
                true,
                vb.pp("transformation"),
            )?,
            text_projection: Linear::new(config.project_dim, projection_dim, false, projection)?,
            pad_token_id: encoder.pad_token_id,
        })
    }

    /// Text embeddings, not normalised: (batch, projection_dim), in the weights' dtype.
    ///
    /// * `input_ids` (batch, tokens), u32
    /// * `attention_mask` (batch, tokens), u32, 0 at padding
    ///
    /// # Errors
    /// If the shapes differ, an id is outside the vocabulary, a text has more tokens than the model has positions, or
    /// the mask hides a whole text.
    pub fn forward(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        let prompts = CompactPrompts::new(input_ids, Some(attention_mask), self.pad_token_id)?;
        let prompts = prompts.without_hidden_padding();
        // Everything below works row by row, and only the row of `<s>` is needed.
        let start = self.roberta.encode_first(&prompts)?; // (batch, hidden_size)
        let pooled = self.transformation.forward(&self.pre_ln.forward(&start)?)?;
        self.text_projection.forward(&pooled)
    }

    /// The state of every token after `pre_LN` and `transformation`: (batch, tokens, project_dim).
    /// [`forward`](Self::forward) projects that of `<s>`.
    ///
    /// # Errors
    /// Like [`forward`](Self::forward).
    pub fn hidden_states(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        let prompts = CompactPrompts::new(input_ids, Some(attention_mask), self.pad_token_id)?;
        let hidden = self.roberta.encode(&prompts)?;
        prompts.expand(&self.transformation.forward(&self.pre_ln.forward(&hidden)?)?)
    }
}

/// Both towers and the logit scale.
#[derive(Debug, Clone)]
pub struct AltClip {
    text: AltClipTextTower,
    vision: ClipVisionTower,
    logit_scale: Tensor, // ()
}

impl AltClip {
    /// Reads `text_model.*`, `text_projection.weight`, `vision_model.*`, `visual_projection.weight` and
    /// `logit_scale` under `vb`.
    ///
    /// # Errors
    /// If the configuration contradicts itself, or a weight is missing or has another shape.
    pub fn new(config: &AltClipConfig, vb: VarBuilder) -> Result<Self> {
        let vision = VisionConfig { projection_dim: config.projection_dim, ..config.vision_config.clone() };
        Ok(Self {
            text: AltClipTextTower::new(
                &config.text_config,
                config.projection_dim,
                vb.pp("text_model"),
                vb.pp("text_projection"),
            )?,
            vision: ClipVisionTower::new(&vision, vb.clone())?,
            logit_scale: vb.get_with_hints((), "logit_scale", Init::Const(LOGIT_SCALE_INIT))?,
        })
    }

    /// Joins separately loaded towers. `logit_scale` is a scalar.
    pub fn from_towers(text: AltClipTextTower, vision: ClipVisionTower, logit_scale: Tensor) -> Self {
        Self { text, vision, logit_scale }
    }

    /// Text embeddings, not normalised: see [`AltClipTextTower::forward`].
    pub fn encode_text(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        self.text.forward(input_ids, attention_mask)
    }

    /// The state of every token of the texts: see [`AltClipTextTower::hidden_states`].
    pub fn text_hidden_states(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        self.text.hidden_states(input_ids, attention_mask)
    }

    /// Image embeddings, not normalised: see [`ClipVisionTower::forward`].
    pub fn encode_image(&self, pixel_values: &Tensor) -> Result<Tensor> {
        self.vision.forward(pixel_values)
    }

    /// `logits_per_image`: cosine × exp(logit_scale), (images, texts), f32.
    ///
    /// Its softmax over the texts is the probability that each text matches the image; its transpose is
    /// `logits_per_text`.
    ///
    /// * `image_embeds` (images, projection_dim) and `text_embeds` (texts, projection_dim), normalised or not
    pub fn similarity(&self, image_embeds: &Tensor, text_embeds: &Tensor) -> Result<Tensor> {
        let cosines = normalize(image_embeds)?.matmul(&normalize(text_embeds)?.t()?)?;
        cosines.broadcast_mul(&self.logit_scale.to_dtype(DType::F32)?.exp()?)
    }
}

/// Divides each vector of the last dimension by its length; in f32, since squares can overflow f16.
pub fn normalize(x: &Tensor) -> Result<Tensor> {
    let x = x.to_dtype(DType::F32)?;
    x.broadcast_div(&x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?)
}
