//! Encodes tokens with SigLIP's text tower.

use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};
use fused_ops::{LayerNorm, Linear, for_computing};

use crate::clip_layer::{AttentionMask, ClipLayer};
use crate::clip_text::ClipTextConfig;
use crate::layer_shape::INITIALIZER_RANGE;
use crate::padding::flat_ids;
use crate::word_table::WordTable;

/// `text_model`.
#[derive(Debug, Clone)]
pub struct SiglipTextModel {
    token_embedding: WordTable, // (vocab_size, hidden_size)
    position_embedding: Tensor, // (max_position_embeddings, hidden_size)
    layers: Vec<ClipLayer>,
    final_layer_norm: LayerNorm,
    head: Linear,
}

impl SiglipTextModel {
    /// Reads `embeddings.*`, `encoder.layers.*`, `final_layer_norm.*` and `head.*` under `vb`, for vectors of
    /// `projection_dim` values.
    ///
    /// # Errors
    /// If the configuration contradicts itself, or a weight is missing or has another shape.
    pub fn new(config: &ClipTextConfig, projection_dim: usize, vb: VarBuilder) -> Result<Self> {
        config.check().map_err(candle_core::Error::msg)?;
        let (hidden, embeddings) = (config.hidden_size, vb.pp("embeddings"));
        let init = Init::Randn { mean: 0., stdev: INITIALIZER_RANGE };
        let positions = (config.max_position_embeddings, hidden);
        let positions = embeddings.pp("position_embedding").get_with_hints(positions, "weight", init)?;
        let (shape, layers) = (config.layer_shape(), vb.pp("encoder.layers"));
        Ok(Self {
            token_embedding: WordTable::new(config.vocab_size, hidden, embeddings.pp("token_embedding"))?,
            position_embedding: for_computing(positions)?,
            layers: (0..config.num_hidden_layers)
                .map(|index| ClipLayer::new(&shape, layers.pp(index)))
                .collect::<Result<_>>()?,
            final_layer_norm: LayerNorm::new(hidden, config.layer_norm_eps, vb.pp("final_layer_norm"))?,
            head: Linear::new(hidden, projection_dim, true, vb.pp("head"))?,
        })
    }

    /// Hidden states after `final_layer_norm`: (batch, tokens, hidden_size). All tokens are attended to, padding too.
    ///
    /// * `input_ids` (batch, tokens), u32, on any device, padded to the model's positions
    ///
    /// # Errors
    /// If an id is outside the vocabulary, or a text has more tokens than the model has positions.
    pub fn hidden_states(&self, input_ids: &Tensor) -> Result<Tensor> {
        let (batch, tokens) = input_ids.dims2()?;
        let ids = flat_ids(input_ids, self.position_embedding.dim(0)?)?;
        let words = self.token_embedding.forward(&ids)?.reshape((batch, tokens, ()))?;
        let mut x = words.broadcast_add(&self.position_embedding.narrow(0, 0, tokens)?)?;
        for layer in &self.layers {
            x = layer.forward(&x, AttentionMask::None)?;
        }
        self.final_layer_norm.forward(&x)
    }

    /// The projected state of the last token, mostly padding, of each text: (batch, projection_dim).
    ///
    /// # Errors
    /// Like [`hidden_states`](Self::hidden_states); also if the batch has no tokens.
    pub fn forward(&self, input_ids: &Tensor) -> Result<Tensor> {
        let hidden = self.hidden_states(input_ids)?;
        let last = hidden.dim(1)?.saturating_sub(1);
        self.head.forward(&hidden.narrow(1, last, 1)?.squeeze(1)?.contiguous()?)
    }
}
