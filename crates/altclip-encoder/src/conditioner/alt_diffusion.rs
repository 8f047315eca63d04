//! Conditions on XLM-R and a projection: AltDiffusion.
//!
//! diffusers' `RobertaSeriesModelWithTransformation`, in both of its forms.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use fused_ops::{LayerNorm, Linear};
use model_files::config::{ConfigFile, FieldTable, from_shared_fields};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{CompactHiddenStates, Conditioner, ConditionerSpec, check_skipped};
use crate::Error;
use crate::padding::CompactPrompts;
use crate::transformers_fields;
use crate::xlm_roberta::{XlmRobertaConfig, XlmRobertaModel};

/// `config.json` of a `text_encoder` folder (`RobertaSeriesConfig` of diffusers).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextEncoderConfig {
    /// The encoder's configuration, flattened.
    #[serde(flatten)]
    pub encoder: XlmRobertaConfig,
    /// Width of the projected hidden states: the UNet's `cross_attention_dim`.
    pub project_dim: usize,
    /// Whether the attention mask is used in the encoder; otherwise padding is attended to as well.
    pub use_attention_mask: bool,
    /// Whether the second-to-last hidden state is used, through `pre_LN` and `transformation_pre`.
    pub has_pre_transformation: bool,
}

impl ConfigFile for TextEncoderConfig {
    const FIELDS: FieldTable = transformers_fields::ROBERTA_SERIES;
}

/// Missing fields have diffusers' defaults.
impl<'de> Deserialize<'de> for TextEncoderConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(default)]
        struct ProjectionFields {
            project_dim: usize,
            use_attention_mask: bool,
            has_pre_transformation: bool,
        }

        impl Default for ProjectionFields {
            fn default() -> Self {
                Self { project_dim: 512, use_attention_mask: true, has_pre_transformation: false }
            }
        }

        let fields = Value::deserialize(deserializer)?;
        let ProjectionFields { project_dim, use_attention_mask, has_pre_transformation } =
            from_shared_fields(&fields)?;
        let encoder = from_shared_fields(&fields)?;
        Ok(Self { encoder, project_dim, use_attention_mask, has_pre_transformation })
    }
}

/// Maps prompts' token ids to hidden states of the UNet's cross-attention width.
#[derive(Debug, Clone)]
pub struct TextEncoder {
    config: TextEncoderConfig,
    roberta: XlmRobertaModel,
    projection: Projection,
}

/// What follows the encoder, in the two kinds of checkpoints.
#[derive(Debug, Clone)]
enum Projection {
    /// `transformation(last hidden state)`, AltDiffusion.
    Last { transformation: Linear },
    /// `transformation_pre(pre_LN(second-to-last hidden state))`, AltDiffusion-m9 and -m18.
    SecondToLast { pre_ln: LayerNorm, transformation_pre: Linear },
}

impl Projection {
    /// `x` (rows, hidden_size) → (rows, project_dim)
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Last { transformation } => transformation.forward(x),
            Self::SecondToLast { pre_ln, transformation_pre } => {
                transformation_pre.forward(&pre_ln.forward(x)?)
            }
        }
    }
}

impl TextEncoderConfig {
    pub(super) fn spec(&self) -> ConditionerSpec {
        ConditionerSpec {
            width: self.project_dim,
            embedding_width: self.encoder.hidden_size,
            vocab_size: self.encoder.vocab_size,
            max_tokens: self.encoder.max_tokens(),
        }
    }
}

impl TextEncoder {
    /// Reads `roberta.*` and the projection under `vb`: `transformation.*`, or `pre_LN.*` and
    /// `transformation_pre.*`. Other tensors are ignored.
    ///
    /// # Errors
    /// If the configuration contradicts itself, or a weight is missing or has another shape.
    pub fn new(config: &TextEncoderConfig, vb: VarBuilder) -> Result<Self> {
        let (hidden, project) = (config.encoder.hidden_size, config.project_dim);
        let roberta = XlmRobertaModel::new(&config.encoder, vb.pp("roberta"))?;
        let (roberta, projection) = if config.has_pre_transformation {
            let projection = Projection::SecondToLast {
                pre_ln: LayerNorm::new(hidden, config.encoder.layer_norm_eps, vb.pp("pre_LN"))?,
                transformation_pre: Linear::new(hidden, project, true, vb.pp("transformation_pre"))?,
            };
            (roberta.without_last_layers(1), projection)
        } else {
            let transformation = Linear::new(hidden, project, true, vb.pp("transformation"))?;
            (roberta, Projection::Last { transformation })
        };
        Ok(Self { config: config.clone(), roberta, projection })
    }

    /// The encoder's configuration.
    pub fn config(&self) -> &TextEncoderConfig {
        &self.config
    }
}

impl Conditioner for TextEncoder {
    fn spec(&self) -> ConditionerSpec {
        self.config.spec()
    }

    fn encode_compact_while(
        &self,
        input_ids: &Tensor,
        attention_mask: &Tensor,
        proceed: &dyn Fn() -> Result<()>,
    ) -> Result<CompactHiddenStates> {
        let mask = self.config.use_attention_mask.then_some(attention_mask);
        let prompts = CompactPrompts::new(input_ids, mask, self.config.encoder.pad_token_id)?;
        let rows = self.projection.forward(&self.roberta.encode_while(&prompts, proceed)?)?;
        CompactHiddenStates::of_merged(prompts, rows)
    }

    fn word_embeddings(&self, ids: &[u32]) -> Result<Tensor> {
        self.roberta.word_embeddings(ids)
    }

    fn with_added_embeddings(&self, first: u32, rows: &Tensor) -> Result<Arc<dyn Conditioner>> {
        let Self { config, roberta, projection } = self.clone();
        Ok(Arc::new(Self { config, roberta: roberta.with_added_embeddings(first, rows)?, projection }))
    }

    fn skipping_layers(&self, count: usize) -> std::result::Result<Arc<dyn Conditioner>, Error> {
        check_skipped(count, self.roberta.layers())?;
        let Self { config, roberta, projection } = self.clone();
        Ok(Arc::new(Self { config, roberta: roberta.without_last_layers(count), projection }))
    }
}
