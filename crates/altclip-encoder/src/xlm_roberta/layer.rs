//! Computes a layer of XLM-R or BERT: attention and feed-forward, each followed by its residual and layer norm
//! (post-LN).

use candle_core::{Device, Result, Tensor};
use candle_nn::VarBuilder;
use fused_ops::{AttentionHeads, LayerNorm, Linear, LinearGroup, Sequences, packed_attention};

use crate::activation::HiddenAct;
use crate::layer_shape::LayerShape;

/// `encoder.layer.N`.
#[derive(Debug, Clone)]
pub(crate) struct XlmRobertaLayer {
    attention: XlmRobertaSelfAttention,
    attention_output: ResidualNorm,
    intermediate: Linear,
    activation: HiddenAct,
    output: ResidualNorm,
}

impl XlmRobertaLayer {
    pub(crate) fn new(shape: &LayerShape, vb: VarBuilder) -> Result<Self> {
        let (hidden, intermediate) = (shape.hidden_size, shape.intermediate_size);
        let eps = shape.layer_norm_eps;
        Ok(Self {
            attention: XlmRobertaSelfAttention::new(shape, vb.pp("attention.self"))?,
            attention_output: ResidualNorm::new(hidden, hidden, eps, vb.pp("attention.output"))?,
            intermediate: Linear::new(hidden, intermediate, true, vb.pp("intermediate.dense"))?,
            activation: shape.hidden_act,
            output: ResidualNorm::new(intermediate, hidden, eps, vb.pp("output"))?,
        })
    }

    /// The rows of `sequences`, (rows, hidden_size) → the same.
    pub(crate) fn forward(&self, x: &Tensor, sequences: &Sequences) -> Result<Tensor> {
        self.after_attention(&self.attention.forward(x, sequences)?, x)
    }

    /// Like [`forward`](Self::forward), but only the first row of each sequence: (sequences, hidden_size). Only
    /// attention needs the others.
    pub(crate) fn forward_first(&self, x: &Tensor, sequences: &Sequences) -> Result<Tensor> {
        let first = first_rows(sequences, x.device())?;
        let attended = self.attention.forward(x, sequences)?.index_select(&first, 0)?;
        self.after_attention(&attended, &x.index_select(&first, 0)?)
    }

    fn after_attention(&self, attended: &Tensor, x: &Tensor) -> Result<Tensor> {
        let x = self.attention_output.forward(attended, x)?;
        self.output.forward_after(&self.intermediate, self.activation, &x)
    }
}

/// The index of the first row of each sequence.
pub(crate) fn first_rows(sequences: &Sequences, device: &Device) -> Result<Tensor> {
    let mut row = 0u32;
    let mut starts = Vec::with_capacity(sequences.lengths().len());
    for &length in sequences.lengths() {
        starts.push(row);
        row += length as u32;
    }
    Tensor::new(starts, device)
}

/// `attention.self`.
#[derive(Debug, Clone)]
struct XlmRobertaSelfAttention {
    query_key_value: LinearGroup<3>,
    heads: AttentionHeads,
}

impl XlmRobertaSelfAttention {
    fn new(shape: &LayerShape, vb: VarBuilder) -> Result<Self> {
        let projection = |name: &str| Linear::new(shape.hidden_size, shape.hidden_size, true, vb.pp(name));
        let projections = [projection("query")?, projection("key")?, projection("value")?];
        Ok(Self {
            query_key_value: LinearGroup::new(projections)?,
            heads: AttentionHeads::new(shape.num_attention_heads, &vb),
        })
    }

    fn forward(&self, x: &Tensor, sequences: &Sequences) -> Result<Tensor> {
        let [query, key, value] = self.query_key_value.forward(x)?;
        packed_attention(&query, &key, &value, self.heads, sequences)
    }
}

/// `dense`, the residual and `LayerNorm`: the end of both halves of a layer.
#[derive(Debug, Clone)]
pub(crate) struct ResidualNorm {
    dense: Linear,
    layer_norm: LayerNorm,
}

impl ResidualNorm {
    pub(crate) fn new(input: usize, output: usize, eps: f64, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            dense: Linear::new(input, output, true, vb.pp("dense"))?,
            layer_norm: LayerNorm::new(output, eps, vb.pp("LayerNorm"))?,
        })
    }

    pub(crate) fn forward(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.dense.forward_normalised(x, residual, &self.layer_norm)
    }

    /// The end of a feed-forward block on `x`, after another layer and its activation.
    pub(crate) fn forward_after(&self, first: &Linear, activation: HiddenAct, x: &Tensor) -> Result<Tensor> {
        first.forward_through_normalised(x, activation.operation(), &self.dense, x, &self.layer_norm)
    }
}
