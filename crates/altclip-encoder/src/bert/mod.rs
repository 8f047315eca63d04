//! Encodes tokens with BERT, the text tower of the Chinese dual encoders.
//!
//! BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding,
//! <https://arxiv.org/abs/1810.04805>; transformers' `BertModel` without its pooler. Its layers are
//! [XLM-R's](crate::xlm_roberta); its positions count every row, including padding.

mod config;
mod distilbert;
mod embeddings;
pub(crate) mod joint;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use fused_ops::{Sequences, compute_dtype};

pub use self::config::BertConfig;
pub use self::distilbert::DistilBertConfig;
pub(crate) use self::distilbert::distilbert_name;
use self::embeddings::BertEmbeddings;
use crate::padding::hidden_key_bias;
use crate::xlm_roberta::layer::{XlmRobertaLayer, first_rows};

/// Maps token ids to hidden states.
#[derive(Debug, Clone)]
pub struct BertModel {
    embeddings: BertEmbeddings,
    layers: Vec<XlmRobertaLayer>,
    device: Device,
    dtype: DType,
}

impl BertModel {
    /// Reads `embeddings.*` and `encoder.layer.*` under `vb`.
    ///
    /// # Errors
    /// If the configuration contradicts itself, or a weight is missing or has another shape.
    pub fn new(config: &BertConfig, vb: VarBuilder) -> Result<Self> {
        config.check().map_err(candle_core::Error::msg)?;
        let embeddings = BertEmbeddings::new(config, vb.pp("embeddings"))?;
        let (shape, layers) = (config.layer_shape(), vb.pp("encoder.layer"));
        let layers = (0..config.num_hidden_layers)
            .map(|index| XlmRobertaLayer::new(&shape, layers.pp(index)))
            .collect::<Result<_>>()?;
        Ok(Self {
            embeddings,
            layers,
            device: vb.device().clone(),
            dtype: compute_dtype(vb.dtype(), vb.device()),
        })
    }

    /// Drops the last `count` layers, so that [`forward`](Self::forward) returns an earlier hidden state.
    pub(crate) fn without_last_layers(mut self, count: usize) -> Self {
        self.layers.truncate(self.layers.len().saturating_sub(count));
        self
    }

    /// The number of layers.
    pub(crate) fn layers(&self) -> usize {
        self.layers.len()
    }

    /// The embeddings of tokens before their positions are added, (ids, hidden_size).
    pub(crate) fn word_embeddings(&self, ids: &[u32]) -> Result<Tensor> {
        self.embeddings.words(ids)
    }

    /// Adds `rows` (added, hidden_size), the embeddings of the ids from `first` on.
    pub(crate) fn with_added_embeddings(self, first: u32, rows: &Tensor) -> Result<Self> {
        Ok(Self { embeddings: self.embeddings.with_added(first, rows)?, ..self })
    }

    /// Hidden state after the last layer: (batch, tokens, hidden_size).
    ///
    /// * `input_ids` (batch, tokens), u32, on any device
    /// * `attention_mask` (batch, tokens), u32, 0 at padding
    ///
    /// # Errors
    /// If the shapes differ, an id is outside the vocabulary, a text has more tokens than the model has positions, or
    /// the mask hides a whole text.
    pub fn forward(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        self.forward_while(input_ids, Some(attention_mask), &|| Ok(()))
    }

    /// The final state of each text's first token, `[CLS]`: (batch, hidden_size). Like that of
    /// [`forward`](Self::forward), but the last layer computes no other.
    pub(crate) fn class_states(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        let (batch, tokens) = input_ids.dims2()?;
        let bias = hidden_key_bias(input_ids, attention_mask, &self.device)?;
        let sequences = Sequences::new(vec![tokens; batch], Some(&bias), &self.device)?;
        let mut x = self.embeddings.forward(input_ids)?.flatten_to(1)?;
        let Some((last, before)) = self.layers.split_last() else {
            return x.index_select(&first_rows(&sequences, &self.device)?, 0);
        };
        for layer in before {
            x = layer.forward(&x, &sequences)?;
        }
        last.forward_first(&x, &sequences)
    }

    /// Like [`forward`](Self::forward), but without a mask all tokens are attended to; calls `proceed` before each
    /// layer, whose error ends the work.
    pub(crate) fn forward_while(
        &self,
        input_ids: &Tensor,
        attention_mask: Option<&Tensor>,
        proceed: &dyn Fn() -> Result<()>,
    ) -> Result<Tensor> {
        let (batch, tokens) = input_ids.dims2()?;
        let bias = attention_mask.map(|mask| hidden_key_bias(input_ids, mask, &self.device)).transpose()?;
        let sequences = Sequences::new(vec![tokens; batch], bias.as_ref(), &self.device)?;
        let mut x = self.embeddings.forward(input_ids)?.flatten_to(1)?;
        for layer in &self.layers {
            proceed()?;
            x = layer.forward(&x, &sequences)?;
        }
        x.reshape((batch, tokens, ()))
    }

    /// The device of the weights, and of the result of [`forward`](Self::forward).
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The dtype that the model computes in, and that [`forward`](Self::forward) returns.
    pub fn dtype(&self) -> DType {
        self.dtype
    }
}
