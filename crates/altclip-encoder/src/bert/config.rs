//! Reads the `config.json` of a BERT encoder.

use model_files::config::{ConfigFile, FieldTable};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::activation::HiddenAct;
use crate::checked::checked;
use crate::layer_shape::{LARGEST_WIDTH, LayerShape, MOST_LAYERS, MOST_TOKENS, check_limits, check_positive};
use crate::transformers_fields;
use crate::xlm_roberta::PositionEmbedding;

/// The fields of transformers' `BertConfig` and `ChineseCLIPTextConfig` that decide what the encoder computes.
///
/// Missing fields have transformers' defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", default)]
pub struct BertConfig {
    /// Rows of the token embedding.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Number of transformer layers.
    pub num_hidden_layers: usize,
    /// Attention heads of each layer; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Width between the two linear layers of the feed-forward block.
    pub intermediate_size: usize,
    /// Activation of the feed-forward block.
    pub hidden_act: HiddenAct,
    /// Rows of the position embedding: the longest text in tokens.
    pub max_position_embeddings: usize,
    /// Rows of the token type embedding, of which only the first is used; 0 if there is none, as in DistilBERT.
    pub type_vocab_size: usize,
    /// Epsilon of every layer norm.
    pub layer_norm_eps: f64,
    /// How positions are encoded.
    pub position_embedding_type: PositionEmbedding,
}

impl Default for BertConfig {
    fn default() -> Self {
        Self {
            vocab_size: 30522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: HiddenAct::Gelu,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            position_embedding_type: PositionEmbedding::Absolute,
        }
    }
}

impl ConfigFile for BertConfig {
    const FIELDS: FieldTable = transformers_fields::BERT;
}

impl<'de> Deserialize<'de> for BertConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        checked(Self::deserialize(deserializer)?, |config| {
            config.check()?;
            check_positive([("type_vocab_size", config.type_vocab_size)])
        })
    }
}

impl Serialize for BertConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl BertConfig {
    pub(crate) fn layer_shape(&self) -> LayerShape {
        let &Self { hidden_size, intermediate_size, num_attention_heads, hidden_act, layer_norm_eps, .. } =
            self;
        LayerShape { hidden_size, intermediate_size, num_attention_heads, hidden_act, layer_norm_eps }
    }

    /// Checks that the fields are consistent.
    ///
    /// # Errors
    /// Names the first invalid field, with what was expected.
    pub fn check(&self) -> Result<(), String> {
        check_limits([
            ("num_hidden_layers", self.num_hidden_layers, MOST_LAYERS),
            ("vocab_size", self.vocab_size, MOST_TOKENS),
            ("max_position_embeddings", self.max_position_embeddings, LARGEST_WIDTH),
            ("type_vocab_size", self.type_vocab_size, LARGEST_WIDTH),
        ])?;
        self.layer_shape().check()?;
        check_positive([
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ])
    }
}
