//! Encodes tokens with XLM-R, the multilingual encoder under both forms of the text tower.
//!
//! Unsupervised Cross-lingual Representation Learning at Scale, <https://arxiv.org/abs/1911.02116>; transformers'
//! `XLMRobertaModel` without its pooler. Layer norms follow the residuals (post-LN). There is no dropout, even in
//! training.

mod config;
mod embeddings;
pub(crate) mod layer;

use candle_core::{Device, Result, Tensor};
use candle_nn::VarBuilder;
use fused_ops::Sequences;

pub use self::config::{PositionEmbedding, XlmRobertaConfig};
use self::embeddings::XlmRobertaEmbeddings;
use self::layer::{XlmRobertaLayer, first_rows};
use crate::padding::CompactPrompts;

/// Maps token ids to hidden states.
#[derive(Debug, Clone)]
pub struct XlmRobertaModel {
    embeddings: XlmRobertaEmbeddings,
    layers: Vec<XlmRobertaLayer>,
    device: Device,
}

impl XlmRobertaModel {
    /// Reads `embeddings.*` and `encoder.layer.*` under `vb`.
    ///
    /// # Errors
    /// If the configuration contradicts itself, or a weight is missing or has another shape.
    pub fn new(config: &XlmRobertaConfig, vb: VarBuilder) -> Result<Self> {
        config.check().map_err(candle_core::Error::msg)?;
        let embeddings = XlmRobertaEmbeddings::new(config, vb.pp("embeddings"))?;
        let (shape, layers) = (config.layer_shape(), vb.pp("encoder.layer"));
        let layers = (0..config.num_hidden_layers)
            .map(|index| XlmRobertaLayer::new(&shape, layers.pp(index)))
            .collect::<Result<_>>()?;
        Ok(Self { embeddings, layers, device: vb.device().clone() })
    }

    /// Drops the last `count` layers, so that [`forward`](Self::forward) returns an earlier hidden state. Their
    /// memory is freed unless another clone holds it.
    pub fn without_last_layers(mut self, count: usize) -> Self {
        self.layers.truncate(self.layers.len().saturating_sub(count));
        self
    }

    /// The number of layers.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// The embeddings of tokens before their positions are added, (ids, hidden_size).
    ///
    /// # Errors
    /// If an id is outside the vocabulary.
    pub fn word_embeddings(&self, ids: &[u32]) -> Result<Tensor> {
        self.embeddings.words(ids)
    }

    /// Adds `rows` (added, hidden_size), the embeddings of the ids from `first` on.
    ///
    /// # Errors
    /// If the rows have another width than the model.
    pub fn with_added_embeddings(self, first: u32, rows: &Tensor) -> Result<Self> {
        Ok(Self { embeddings: self.embeddings.with_added(first, rows)?, ..self })
    }

    /// Hidden state after the last layer: (batch, tokens, hidden_size).
    ///
    /// * `input_ids` (batch, tokens), u32, on any device
    /// * `key_bias` (batch, tokens), f32, added to every attention score of that key: 0 for a visible token, −∞ for a
    ///   masked one, ln m for one that stands for m equal ones
    ///
    /// # Errors
    /// If an id is outside the vocabulary, or a prompt has more tokens than the model has positions.
    pub fn forward(&self, input_ids: &Tensor, key_bias: Option<&Tensor>) -> Result<Tensor> {
        let (batch, tokens) = input_ids.dims2()?;
        let input_ids = input_ids.contiguous()?.flatten_all()?.to_vec1()?;
        let sequences = Sequences::new(vec![tokens; batch], key_bias, &self.device)?;
        self.forward_packed(&input_ids, &sequences)?.reshape((batch, tokens, ()))
    }

    /// Encodes concatenated texts of mixed lengths, without padding: (rows, hidden_size).
    ///
    /// # Errors
    /// If the number of ids differs from the rows of `sequences`; also like [`forward`](Self::forward).
    pub fn forward_packed(&self, input_ids: &[u32], sequences: &Sequences) -> Result<Tensor> {
        self.forward_packed_while(input_ids, sequences, &|| Ok(()))
    }

    /// Like [`forward_packed`](Self::forward_packed), calling `proceed` before each layer; its error ends the work.
    fn forward_packed_while(
        &self,
        input_ids: &[u32],
        sequences: &Sequences,
        proceed: &dyn Fn() -> Result<()>,
    ) -> Result<Tensor> {
        let mut x = self.embeddings.forward(input_ids, sequences.lengths())?;
        for layer in &self.layers {
            proceed()?;
            x = layer.forward(&x, sequences)?;
        }
        Ok(x)
    }

    /// The first row of each prompt, that of `<s>`: (prompts, hidden_size).
    pub(crate) fn encode_first(&self, prompts: &CompactPrompts) -> Result<Tensor> {
        let encode = |part: &CompactPrompts| {
            let sequences = part.sequences(&self.device)?;
            let mut x = self.embeddings.forward(&part.input_ids(), sequences.lengths())?;
            let Some((last, before)) = self.layers.split_last() else {
                return x.index_select(&first_rows(&sequences, &self.device)?, 0);
            };
            for layer in before {
                x = layer.forward(&x, &sequences)?;
            }
            last.forward_first(&x, &sequences)
        };
        match prompts.parts().as_slice() {
            [all] => encode(all),
            parts => Tensor::cat(&parts.iter().map(encode).collect::<Result<Vec<_>>>()?, 0),
        }
    }

    /// The rows of prompts: (rows, hidden_size).
    pub(crate) fn encode(&self, prompts: &CompactPrompts) -> Result<Tensor> {
        self.encode_while(prompts, &|| Ok(()))
    }

    /// Like [`encode`](Self::encode), calling `proceed` before each layer; its error ends the work.
    pub(crate) fn encode_while(
        &self,
        prompts: &CompactPrompts,
        proceed: &dyn Fn() -> Result<()>,
    ) -> Result<Tensor> {
        let encode = |part: &CompactPrompts| {
            self.forward_packed_while(&part.input_ids(), &part.sequences(&self.device)?, proceed)
        };
        match prompts.parts().as_slice() {
            [all] => encode(all),
            parts => Tensor::cat(&parts.iter().map(encode).collect::<Result<Vec<_>>>()?, 0),
        }
    }

    /// The device of the weights, and of the result of [`forward`](Self::forward).
    pub fn device(&self) -> &Device {
        &self.device
    }
}
