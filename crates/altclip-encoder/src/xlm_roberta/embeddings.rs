//! Embeds token ids.

use candle_core::{Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use fused_ops::{LayerNorm, for_computing};

use super::config::XlmRobertaConfig;
use crate::layer_shape::INITIALIZER_RANGE;
use crate::word_table::WordTable;

/// Sum of token, position and token type embeddings, normalised.
#[derive(Debug, Clone)]
pub(super) struct XlmRobertaEmbeddings {
    word_embeddings: WordTable,    // (vocab_size, hidden_size)
    position_embeddings: Tensor,   // (max_position_embeddings, hidden_size)
    token_type_embeddings: Tensor, // (type_vocab_size, hidden_size)
    layer_norm: LayerNorm,
    max_tokens: usize,
    pad_token_id: u32,
}

impl XlmRobertaEmbeddings {
    /// Reads `word_embeddings`, `position_embeddings`, `token_type_embeddings` and `LayerNorm` under `vb`.
    pub(super) fn new(config: &XlmRobertaConfig, vb: VarBuilder) -> Result<Self> {
        let init = Init::Randn { mean: 0., stdev: INITIALIZER_RANGE };
        let table =
            |name: &str, rows: usize| vb.pp(name).get_with_hints((rows, config.hidden_size), "weight", init);
        Ok(Self {
            word_embeddings: WordTable::new(config.vocab_size, config.hidden_size, vb.pp("word_embeddings"))?,
            position_embeddings: for_computing(table(
                "position_embeddings",
                config.max_position_embeddings,
            )?)?,
            token_type_embeddings: for_computing(table("token_type_embeddings", config.type_vocab_size)?)?,
            layer_norm: LayerNorm::new(config.hidden_size, config.layer_norm_eps, vb.pp("LayerNorm"))?,
            max_tokens: config.max_tokens(),
            pad_token_id: config.pad_token_id,
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

    /// Embeds the concatenated `input_ids` of prompts with these `lengths`: (rows, hidden_size), on the weights'
    /// device.
    ///
    /// # Errors
    /// If the number of ids differs, one is outside the vocabulary, or a prompt has more tokens than the model has
    /// positions.
    pub(super) fn forward(&self, input_ids: &[u32], lengths: &[usize]) -> Result<Tensor> {
        let positions = self.positions(input_ids, lengths)?;
        let words = self.word_embeddings.forward(input_ids)?;
        let positions = Tensor::new(positions, words.device())?;
        let positions = self.position_embeddings.index_select(&positions, 0)?;
        let token_type = self.token_type_embeddings.narrow(0, 0, 1)?;
        self.layer_norm.forward(&(words.broadcast_add(&token_type)? + positions)?)
    }

    /// The position of every id: other tokens count up from `pad_token_id + 1`, and all padding has `pad_token_id`
    /// (transformers' `create_position_ids_from_input_ids`).
    fn positions(&self, input_ids: &[u32], lengths: &[usize]) -> Result<Vec<u32>> {
        let rows: usize = lengths.iter().sum();
        if input_ids.len() != rows {
            bail!("{} token ids for prompts of {rows} rows", input_ids.len())
        }
        let mut positions = Vec::with_capacity(rows);
        let mut rest = input_ids;
        for &length in lengths {
            let (prompt, others) = rest.split_at(length);
            rest = others;
            let mut position = self.pad_token_id;
            for &id in prompt {
                if id == self.pad_token_id {
                    positions.push(self.pad_token_id);
                } else {
                    position += 1;
                    positions.push(position);
                }
            }
            let count = (position - self.pad_token_id) as usize;
            if count > self.max_tokens {
                bail!(
                    "a prompt has {count} tokens, and the text encoder has positions for {}",
                    self.max_tokens
                )
            }
        }
        Ok(positions)
    }
}
