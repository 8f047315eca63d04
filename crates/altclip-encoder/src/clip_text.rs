//! Encodes tokens with CLIP's text tower, which has causal attention.
//!
//! Learning Transferable Visual Models From Natural Language Supervision, <https://arxiv.org/abs/2103.00020>;
//! `CLIPTextModel` of transformers.

use candle_core::{DType, Device, Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use fused_ops::{LayerNorm, compute_dtype, for_computing};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::activation::HiddenAct;
use crate::checked::checked;
use crate::clip_layer::{AttentionMask, ClipLayer};
use crate::layer_shape::{
    INITIALIZER_RANGE, LARGEST_WIDTH, LayerShape, MOST_LAYERS, MOST_TOKENS, check_limits, check_positive,
};
use crate::padding::{flat_ids, hidden_key_bias};
use crate::word_table::WordTable;

/// The `eos_token_id` in OpenAI's own configurations. It is not the id of the end token, which is the largest id of a
/// text.
pub(crate) const LEGACY_EOS_TOKEN_ID: u32 = 2;

/// `text_config` of a CLIP (`CLIPTextConfig` of transformers).
///
/// Missing fields have transformers' defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", default)]
pub struct ClipTextConfig {
    /// Rows of the token embedding.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Width between the two linear layers of the feed-forward block.
    pub intermediate_size: usize,
    /// Number of transformer layers.
    pub num_hidden_layers: usize,
    /// Attention heads of each layer; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Rows of the position embedding: the longest text in tokens.
    pub max_position_embeddings: usize,
    /// Activation of the feed-forward block.
    pub hidden_act: HiddenAct,
    /// Epsilon of every layer norm.
    pub layer_norm_eps: f64,
    /// The id of the token whose state represents the text. 2, as in OpenAI's files, means the largest id of a text.
    pub eos_token_id: u32,
}

impl Default for ClipTextConfig {
    fn default() -> Self {
        Self {
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: HiddenAct::QuickGelu,
            layer_norm_eps: 1e-5,
            eos_token_id: 49407,
        }
    }
}

impl<'de> Deserialize<'de> for ClipTextConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        checked(Self::deserialize(deserializer)?, Self::check)
    }
}

impl Serialize for ClipTextConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl ClipTextConfig {
    pub(crate) fn layer_shape(&self) -> LayerShape {
        let &Self { hidden_size, intermediate_size, num_attention_heads, hidden_act, layer_norm_eps, .. } =
            self;
        LayerShape { hidden_size, intermediate_size, num_attention_heads, hidden_act, layer_norm_eps }
    }

    /// Checks that the fields are consistent.
    ///
    /// # Errors
    /// Names the first invalid field, with what was expected.
    pub fn check(&self) -> std::result::Result<(), String> {
        check_limits([
            ("num_hidden_layers", self.num_hidden_layers, MOST_LAYERS),
            ("vocab_size", self.vocab_size, MOST_TOKENS),
            ("max_position_embeddings", self.max_position_embeddings, LARGEST_WIDTH),
        ])?;
        self.layer_shape().check()?;
        check_positive([
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ])
    }
}

/// `text_model`.
#[derive(Debug, Clone)]
pub struct ClipTextModel {
    token_embedding: WordTable, // (vocab_size, hidden_size)
    position_embedding: Tensor, // (max_position_embeddings, hidden_size)
    layers: Vec<ClipLayer>,
    final_layer_norm: LayerNorm,
    eos_token_id: u32,
    device: Device,
    dtype: DType,
}

impl ClipTextModel {
    /// Reads `embeddings.*`, `encoder.layers.*` and `final_layer_norm.*` under `vb`.
    ///
    /// # Errors
    /// If the configuration contradicts itself, or a weight is missing or has another shape.
    pub fn new(config: &ClipTextConfig, vb: VarBuilder) -> Result<Self> {
        config.check().map_err(candle_core::Error::msg)?;
        let embeddings = vb.pp("embeddings");
        let words = embeddings.pp("token_embedding");
        let token_embedding = WordTable::new(config.vocab_size, config.hidden_size, words)?;
        let init = Init::Randn { mean: 0., stdev: INITIALIZER_RANGE };
        let positions = (config.max_position_embeddings, config.hidden_size);
        let position_embedding =
            embeddings.pp("position_embedding").get_with_hints(positions, "weight", init)?;
        let (shape, layers) = (config.layer_shape(), vb.pp("encoder.layers"));
        Ok(Self {
            token_embedding,
            position_embedding: for_computing(position_embedding)?,
            layers: (0..config.num_hidden_layers)
                .map(|index| ClipLayer::new(&shape, layers.pp(index)))
                .collect::<Result<_>>()?,
            final_layer_norm: LayerNorm::new(
                config.hidden_size,
                config.layer_norm_eps,
                vb.pp("final_layer_norm"),
            )?,
            eos_token_id: config.eos_token_id,
            device: vb.device().clone(),
            dtype: compute_dtype(vb.dtype(), vb.device()),
        })
    }

    /// Drops the last `count` layers, so that [`hidden_states`](Self::hidden_states) are those of an earlier one.
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
        self.token_embedding.forward(ids)
    }

    /// Adds `rows` (added, hidden_size), the embeddings of the ids from `first` on.
    pub(crate) fn with_added_embeddings(self, first: u32, rows: &Tensor) -> Result<Self> {
        Ok(Self { token_embedding: self.token_embedding.with_added(first, rows)?, ..self })
    }

    /// Hidden states after `final_layer_norm`: (batch, tokens, hidden_size).
    ///
    /// * `input_ids` (batch, tokens), u32, on any device
    /// * `attention_mask` (batch, tokens), u32, 0 at padding, which must be at the end
    ///
    /// # Errors
    /// If the shapes differ, an id is outside the vocabulary, a text has more tokens than the model has positions,
    /// or the mask hides the first token of a text.
    pub fn hidden_states(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        self.hidden_states_while(input_ids, Some(attention_mask), &|| Ok(()))
    }

    /// Like [`hidden_states`](Self::hidden_states), but without a mask every earlier token is attended to; calls
    /// `proceed` before each layer, whose error ends the work.
    pub(crate) fn hidden_states_while(
        &self,
        input_ids: &Tensor,
        attention_mask: Option<&Tensor>,
        proceed: &dyn Fn() -> Result<()>,
    ) -> Result<Tensor> {
        let (batch, tokens) = input_ids.dims2()?;
        let ids = flat_ids(input_ids, self.position_embedding.dim(0)?)?;
        let bias = attention_mask.map(|mask| self.key_bias(input_ids, mask)).transpose()?;
        let words = self.token_embedding.forward(&ids)?.reshape((batch, tokens, ()))?;
        let mut x = words.broadcast_add(&self.position_embedding.narrow(0, 0, tokens)?)?;
        for layer in &self.layers {
            proceed()?;
            x = layer.forward(&x, AttentionMask::Causal(bias.as_ref()))?;
        }
        self.final_layer_norm.forward(&x)
    }

    /// The bias of each key. The first token must be seen, since it attends to nothing else.
    fn key_bias(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        let bias = hidden_key_bias(input_ids, attention_mask, &self.device)?;
        for (index, row) in attention_mask.to_vec2::<u32>()?.iter().enumerate() {
            if row.first() == Some(&0) {
                bail!("the attention mask hides the first token of text {index}, expected padding at the end")
            }
        }
        Ok(bias)
    }

    /// The state at the end of each text, which depends on all of it: (batch, hidden_size).
    ///
    /// # Errors
    /// Like [`hidden_states`](Self::hidden_states); also if the batch has no tokens.
    pub fn forward(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        let hidden = self.hidden_states(input_ids, attention_mask)?;
        let (batch, tokens, width) = hidden.dims3()?;
        let rows = input_ids.to_vec2::<u32>()?;
        let ends = rows.iter().enumerate().map(|(text, ids)| self.end(ids, text, tokens));
        let ends = Tensor::from_vec(ends.collect::<Result<Vec<u32>>>()?, batch, &Device::Cpu)?;
        hidden.reshape((batch * tokens, width))?.index_select(&ends.to_device(&self.device)?, 0)
    }

    /// The row of the end of text number `text`, counted over the whole batch.
    fn end(&self, ids: &[u32], text: usize, tokens: usize) -> Result<u32> {
        let is_end = |id: u32| match self.eos_token_id {
            LEGACY_EOS_TOKEN_ID => ids.iter().all(|&other| other <= id),
            eos => id == eos,
        };
        match ids.iter().position(|&id| is_end(id)) {
            Some(place) => Ok((text * tokens + place) as u32),
            None => bail!("text {text} has no end: expected token id {}", self.eos_token_id),
        }
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
