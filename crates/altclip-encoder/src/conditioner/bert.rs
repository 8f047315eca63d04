//! Conditions on BERT: Taiyi-Stable-Diffusion.
//!
//! Taiyi-Diffusion-XL and its predecessor: <https://arxiv.org/abs/2401.14688>; Fengshenbang 1.0,
//! <https://arxiv.org/abs/2209.02970>. transformers' `BertModel`, whose last hidden state is used as it is.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use model_files::config::{ConfigFile, FieldTable, from_shared_fields};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::clip::UseMask;
use super::{CompactHiddenStates, Conditioner, ConditionerSpec, check_skipped};
use crate::Error;
use crate::bert::{BertConfig, BertModel};
use crate::transformers_fields;

/// `config.json` of a `text_encoder` folder (`BertConfig` of transformers).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BertConditionerConfig {
    /// The encoder's configuration, flattened.
    #[serde(flatten)]
    pub encoder: BertConfig,
    /// Whether the attention mask is used; otherwise padding is attended to as well, as in all published models.
    pub use_attention_mask: bool,
}

impl ConfigFile for BertConditionerConfig {
    const FIELDS: FieldTable = transformers_fields::BERT_CONDITIONER;
}

impl<'de> Deserialize<'de> for BertConditionerConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let fields = Value::deserialize(deserializer)?;
        let UseMask { use_attention_mask } = from_shared_fields(&fields)?;
        Ok(Self { encoder: from_shared_fields(&fields)?, use_attention_mask })
    }
}

impl BertConditionerConfig {
    pub(super) fn spec(&self) -> ConditionerSpec {
        let BertConfig { hidden_size, vocab_size, max_position_embeddings, .. } = self.encoder;
        ConditionerSpec {
            width: hidden_size,
            embedding_width: hidden_size,
            vocab_size,
            max_tokens: max_position_embeddings,
        }
    }
}

/// Maps prompts' token ids to BERT's hidden states.
#[derive(Debug, Clone)]
pub struct BertConditioner {
    config: BertConditionerConfig,
    bert: BertModel,
}

impl BertConditioner {
    /// Reads `embeddings.*` and `encoder.*` under `vb`. Other tensors are ignored.
    ///
    /// # Errors
    /// If the configuration contradicts itself, or a weight is missing or has another shape.
    pub fn new(config: &BertConditionerConfig, vb: VarBuilder) -> Result<Self> {
        Ok(Self { config: config.clone(), bert: BertModel::new(&config.encoder, vb)? })
    }
}

impl Conditioner for BertConditioner {
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
        CompactHiddenStates::of_all(self.bert.forward_while(input_ids, mask, proceed)?)
    }

    fn word_embeddings(&self, ids: &[u32]) -> Result<Tensor> {
        self.bert.word_embeddings(ids)
    }

    fn with_added_embeddings(&self, first: u32, rows: &Tensor) -> Result<Arc<dyn Conditioner>> {
        let Self { config, bert } = self.clone();
        Ok(Arc::new(Self { config, bert: bert.with_added_embeddings(first, rows)? }))
    }

    fn skipping_layers(&self, count: usize) -> std::result::Result<Arc<dyn Conditioner>, Error> {
        check_skipped(count, self.bert.layers())?;
        let Self { config, bert } = self.clone();
        Ok(Arc::new(Self { config, bert: bert.without_last_layers(count) }))
    }
}
