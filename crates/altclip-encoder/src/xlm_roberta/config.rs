//! Reads the `config.json` of an XLM-R encoder.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::activation::HiddenAct;
use crate::checked::checked;
use crate::layer_shape::{LARGEST_WIDTH, LayerShape, MOST_LAYERS, MOST_TOKENS, check_limits, check_positive};

/// The fields of transformers' `XLMRobertaConfig` that decide what the encoder computes.
///
/// Missing fields have transformers' defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", default)]
pub struct XlmRobertaConfig {
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
    /// Rows of the position embedding; the first `pad_token_id + 1` of them are not used for tokens.
    pub max_position_embeddings: usize,
    /// Rows of the token type embedding, of which only the first is used.
    pub type_vocab_size: usize,
    /// Epsilon of every layer norm.
    pub layer_norm_eps: f64,
    /// Id of `<pad>`; also the position of every padding row.
    pub pad_token_id: u32,
    /// How positions are encoded.
    pub position_embedding_type: PositionEmbedding,
}

/// How positions are encoded: XLM-R only has learned embeddings added to the tokens'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PositionEmbedding {
    /// One learned row per position.
    Absolute,
}

impl Default for XlmRobertaConfig {
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
            pad_token_id: 1,
            position_embedding_type: PositionEmbedding::Absolute,
        }
    }
}

impl<'de> Deserialize<'de> for XlmRobertaConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        checked(Self::deserialize(deserializer)?, Self::check)
    }
}

impl Serialize for XlmRobertaConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl XlmRobertaConfig {
    /// XLM-R large, the encoder of every published AltCLIP and AltDiffusion.
    pub fn large() -> Self {
        Self {
            vocab_size: 250_002,
            hidden_size: 1024,
            num_hidden_layers: 24,
            num_attention_heads: 16,
            intermediate_size: 4096,
            max_position_embeddings: 514,
            type_vocab_size: 1,
            layer_norm_eps: 1e-5,
            ..Self::default()
        }
    }

    /// The longest prompt in tokens: the positions after the padding's.
    pub fn max_tokens(&self) -> usize {
        self.max_position_embeddings.saturating_sub(self.pad_token_id as usize).saturating_sub(1)
    }

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
        check_positive([
            ("num_hidden_layers", self.num_hidden_layers),
            ("type_vocab_size", self.type_vocab_size),
        ])?;
        self.layer_shape().check()?;
        if self.pad_token_id as usize >= self.vocab_size {
            return Err(format!(
                "pad_token_id {} is outside the vocabulary of {} tokens",
                self.pad_token_id, self.vocab_size
            ));
        }
        if self.max_tokens() == 0 {
            return Err(format!(
                "max_position_embeddings {} leaves no position after pad_token_id {}",
                self.max_position_embeddings, self.pad_token_id
            ));
        }
        Ok(())
    }
}
