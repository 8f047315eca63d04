//! Reads DistilBERT as a BERT: the same layers under other names, and no token types.
//!
//! DistilBERT, a distilled version of BERT, <https://arxiv.org/abs/1910.01108>; transformers' `DistilBertModel`.

use model_files::config::{ConfigFile, FieldTable};
use serde::{Deserialize, Deserializer};

use super::BertConfig;
use crate::activation::HiddenAct;
use crate::checked::checked;
use crate::transformers_fields;

/// The fields of transformers' `DistilBertConfig` that decide what the encoder computes.
///
/// Missing fields have transformers' defaults.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(remote = "Self", default)]
pub struct DistilBertConfig {
    /// Rows of the token embedding.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub dim: usize,
    /// Number of transformer layers.
    pub n_layers: usize,
    /// Attention heads of each layer; divides `dim`.
    pub n_heads: usize,
    /// Width between the two linear layers of the feed-forward block.
    pub hidden_dim: usize,
    /// Activation of the feed-forward block.
    pub activation: HiddenAct,
    /// Rows of the position embedding: the longest text in tokens.
    pub max_position_embeddings: usize,
}

impl Default for DistilBertConfig {
    fn default() -> Self {
        Self {
            vocab_size: 30522,
            dim: 768,
            n_layers: 6,
            n_heads: 12,
            hidden_dim: 3072,
            activation: HiddenAct::Gelu,
            max_position_embeddings: 512,
        }
    }
}

impl ConfigFile for DistilBertConfig {
    const FIELDS: FieldTable = transformers_fields::DISTILBERT;
}

impl<'de> Deserialize<'de> for DistilBertConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        checked(Self::deserialize(deserializer)?, |config| config.as_bert().check())
    }
}

impl DistilBertConfig {
    /// The BERT that computes the same.
    pub fn as_bert(&self) -> BertConfig {
        BertConfig {
            vocab_size: self.vocab_size,
            hidden_size: self.dim,
            num_hidden_layers: self.n_layers,
            num_attention_heads: self.n_heads,
            intermediate_size: self.hidden_dim,
            hidden_act: self.activation,
            max_position_embeddings: self.max_position_embeddings,
            type_vocab_size: 0,
            ..BertConfig::default()
        }
    }
}

/// The name in DistilBERT of a weight of BERT.
pub(crate) fn distilbert_name(name: &str) -> Option<String> {
    if name.starts_with("embeddings.") {
        return Some(name.to_owned());
    }
    let (layer, rest) = name.strip_prefix("encoder.layer.")?.split_once('.')?;
    let (part, kind) = rest.rsplit_once('.')?;
    let part = match part {
        "attention.self.query" => "attention.q_lin",
        "attention.self.key" => "attention.k_lin",
        "attention.self.value" => "attention.v_lin",
        "attention.output.dense" => "attention.out_lin",
        "attention.output.LayerNorm" => "sa_layer_norm",
        "intermediate.dense" => "ffn.lin1",
        "output.dense" => "ffn.lin2",
        "output.LayerNorm" => "output_layer_norm",
        _ => return None,
    };
    Some(format!("transformer.layer.{layer}.{part}.{kind}"))
}
