//! Embeds token ids.

use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};
use fused_ops::{LayerNorm, for_computing};

use super::config::BertConfig;
use crate::layer_shape::INITIALIZER_RANGE;
use crate::padding::flat_ids;
use crate::word_table::WordTable;

/// Sum of token, position and token type embeddings, normalised.
#[derive(Debug, Clone)]
pub(super) struct BertEmbeddings {
    word_embeddings: WordTable,            // (vocab_size, hidden_size)
    position_embeddings: Tensor,           // (max_position_embeddings, hidden_size)
    token_type_embeddings: Option<Tensor>, // (type_vocab_size, hidden_size)
    layer_norm: LayerNorm,
}

impl BertEmbeddings {
    /// Reads `word_embeddings`, `position_embeddings`, `token_type_embeddings` if the model has token types, and
    /// `LayerNorm` under `vb`.
    pub(super) fn new(config: &BertConfig, vb: VarBuilder) -> Result<Self> {
        let table = |name: &str, rows: usize| {
            let init = Init::Randn { mean: 0., stdev: INITIALIZER_RANGE };
            vb.pp(name).get_with_hints((rows, config.hidden_size), "weight", init)
        };
        Ok(Self {
            word_embeddings: WordTable::new(config.vocab_size, config.hidden_size, vb.pp("word_embeddings"))?,
            position_embeddings: for_computing(table(
                "position_embeddings",
                config.max_position_embeddings,
            )?)?,
            token_type_embeddings: match config.type_vocab_size {
                0 => None,
                rows => Some(for_computing(table("token_type_embeddings", rows)?)?),
            },
            layer_norm: LayerNorm::new(config.hidden_size, config.layer_norm_eps, vb.pp("LayerNorm"))?,
        })
    }

    /// Adds `rows` (added, hidden_size) for the ids from `first` on, replacing what the table has there.
    ///
    /// # Errors
    /// If the rows have another width.
    pub(super) fn with_added(self, first: u32, rows: &Tensor) -> Result<Self> {
        Ok(Self { word_embeddings: self.word_embeddings.with_added(first, rows)?, ..self })
    }

    /// The word embeddings of `ids`, (ids, hidden_size).
    ///
    /// # Errors
    /// If an id is outside the vocabulary.
    pub(super) fn words(&self, ids: &[u32]) -> Result<Tensor> {
        self.word_embeddings.forward(ids)
    }

    /// `input_ids` (batch, tokens) u32 on any device → (batch, tokens, hidden_size) on the weights' device.
    ///
    /// # Errors
    /// If an id is outside the vocabulary, or a text has more tokens than the model has positions.
    pub(super) fn forward(&self, input_ids: &Tensor) -> Result<Tensor> {
        let (batch, tokens) = input_ids.dims2()?;
        let ids = flat_ids(input_ids, self.position_embeddings.dim(0)?)?;
        let words = self.word_embeddings.forward(&ids)?.reshape((batch, tokens, ()))?;
        let mut positions = self.position_embeddings.narrow(0, 0, tokens)?;
        if let Some(token_types) = &self.token_type_embeddings {
            positions = positions.broadcast_add(&token_types.narrow(0, 0, 1)?)?;
        }
        self.layer_norm.forward(&words.broadcast_add(&positions)?)
    }
}
