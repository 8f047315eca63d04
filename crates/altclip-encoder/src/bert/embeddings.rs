//! Embeds token ids.

use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};
use fused_ops::{LayerNorm, for_computing};

use super::config::BertConfig;
use crate::layer_shape::INITIALIZER_RANGE;
use crate::padding::check_ids;

/// Sum of token, position and token type embeddings, normalised.
#[derive(Debug, Clone)]
pub(super) struct BertEmbeddings {
    word_embeddings: Tensor,       // (vocab_size, hidden_size)
    position_embeddings: Tensor,   // (max_position_embeddings, hidden_size)
    token_type_embeddings: Tensor, // (type_vocab_size, hidden_size)
    layer_norm: LayerNorm,
}

impl BertEmbeddings {
    /// Reads `word_embeddings`, `position_embeddings`, `token_type_embeddings` and `LayerNorm` under `vb`.
    pub(super) fn new(config: &BertConfig, vb: VarBuilder) -> Result<Self> {
        let table = |name: &str, rows: usize| {
            let init = Init::Randn { mean: 0., stdev: INITIALIZER_RANGE };
            vb.pp(name).get_with_hints((rows, config.hidden_size), "weight", init)
        };
        Ok(Self {
            word_embeddings: table("word_embeddings", config.vocab_size)?,
            position_embeddings: for_computing(table(
                "position_embeddings",
                config.max_position_embeddings,
            )?)?,
            token_type_embeddings: for_computing(table("token_type_embeddings", config.type_vocab_size)?)?,
            layer_norm: LayerNorm::new(config.hidden_size, config.layer_norm_eps, vb.pp("LayerNorm"))?,
        })
    }

    /// `input_ids` (batch, tokens) u32 on any device → (batch, tokens, hidden_size) on the weights' device.
    ///
    /// # Errors
    /// If an id is outside the vocabulary, or a text has more tokens than the model has positions.
    pub(super) fn forward(&self, input_ids: &Tensor) -> Result<Tensor> {
        let (batch, tokens) = input_ids.dims2()?;
        check_ids(input_ids, self.word_embeddings.dim(0)?, self.position_embeddings.dim(0)?)?;
        let input_ids = input_ids.contiguous()?.flatten_all()?.to_device(self.word_embeddings.device())?;
        let words = for_computing(self.word_embeddings.index_select(&input_ids, 0)?)?;
        let words = words.reshape((batch, tokens, ()))?;
        let token_type = self.token_type_embeddings.narrow(0, 0, 1)?;
        let positions = self.position_embeddings.narrow(0, 0, tokens)?.broadcast_add(&token_type)?;
        self.layer_norm.forward(&words.broadcast_add(&positions)?)
    }
}
