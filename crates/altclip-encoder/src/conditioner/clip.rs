//! Conditions on CLIP's text tower: Stable Diffusion 1 and 2, and models with a tokenizer of their own before it.
//!
//! High-Resolution Image Synthesis with Latent Diffusion Models, <https://arxiv.org/abs/2112.10752>. Stable Diffusion
//! 2 uses the second-to-last layer of OpenCLIP's ViT-H; as published for diffusers, the last layer is left out.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use model_files::config::{ConfigFile, FieldTable, from_shared_fields};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{CompactHiddenStates, Conditioner, ConditionerSpec, check_skipped};
use crate::Error;
use crate::clip_text::{ClipTextConfig, ClipTextModel};
use crate::transformers_fields;

/// `config.json` of a `text_encoder` folder (`CLIPTextConfig` of transformers).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClipConditionerConfig {
    /// The tower's configuration, flattened.
    #[serde(flatten)]
    pub encoder: ClipTextConfig,
    /// Whether the attention mask is used; otherwise padding is attended to by the padding after it, as in all
    /// published models.
    pub use_attention_mask: bool,
}

impl ConfigFile for ClipConditionerConfig {
    const FIELDS: FieldTable = transformers_fields::CLIP_CONDITIONER;
}

impl<'de> Deserialize<'de> for ClipConditionerConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let fields = Value::deserialize(deserializer)?;
        let UseMask { use_attention_mask } = from_shared_fields(&fields)?;
        Ok(Self { encoder: from_shared_fields(&fields)?, use_attention_mask })
    }
}

/// The field that diffusers looks for in the configuration of any text encoder.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct UseMask {
    pub use_attention_mask: bool,
}

impl ClipConditionerConfig {
    pub(super) fn spec(&self) -> ConditionerSpec {
        let ClipTextConfig { hidden_size, vocab_size, max_position_embeddings, .. } = self.encoder;
        ConditionerSpec {
            width: hidden_size,
            embedding_width: hidden_size,
            vocab_size,
            max_tokens: max_position_embeddings,
        }
    }
}

/// Maps prompts' token ids to the states of CLIP's text tower.
#[derive(Debug, Clone)]
pub struct ClipConditioner {
    config: ClipConditionerConfig,
    text_model: ClipTextModel,
}

impl ClipConditioner {
    /// Reads `text_model.*` under `vb`. Other tensors are ignored.
    ///
    /// # Errors
    /// If the configuration contradicts itself, or a weight is missing or has another shape.
    pub fn new(config: &ClipConditionerConfig, vb: VarBuilder) -> Result<Self> {
        let text_model = ClipTextModel::new(&config.encoder, vb.pp("text_model"))?;
        Ok(Self { config: config.clone(), text_model })
    }
}

impl Conditioner for ClipConditioner {
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
        CompactHiddenStates::of_all(self.text_model.hidden_states_while(input_ids, mask, proceed)?)
    }

    fn word_embeddings(&self, ids: &[u32]) -> Result<Tensor> {
        self.text_model.word_embeddings(ids)
    }

    fn with_added_embeddings(&self, first: u32, rows: &Tensor) -> Result<Arc<dyn Conditioner>> {
        let Self { config, text_model } = self.clone();
        Ok(Arc::new(Self { config, text_model: text_model.with_added_embeddings(first, rows)? }))
    }

    fn skipping_layers(&self, count: usize) -> std::result::Result<Arc<dyn Conditioner>, Error> {
        check_skipped(count, self.text_model.layers())?;
        let Self { config, text_model } = self.clone();
        Ok(Arc::new(Self { config, text_model: text_model.without_last_layers(count) }))
    }
}
